"""Checkpoints: whole or absent, refused under another recipe, and continued as if never interrupted."""

import hashlib
import json
import pickle

import pytest
import torch
from torch import nn

from lwd.errors import UserError
from lwd.files import write_json
from lwd.runtime.checkpoint import (
    Damaged,
    checkpoint_path,
    find_checkpoints,
    load_checkpoint,
    load_module,
    load_optimizer,
    load_tensors,
    optimizer_tensors,
    read_state,
    save_checkpoint,
    save_tensors,
    versions,
)
from lwd.training.optim import adamw


class Note:
    """A task whose state is a text."""

    def __init__(self, text="", fails=False):
        self.text, self.fails = text, fails

    def save(self, folder):
        (folder / "note.txt").write_text(self.text)
        if self.fails:
            raise KeyboardInterrupt

    def load(self, folder):
        self.text = (folder / "note.txt").read_text()


RECIPE = {
    "seed": 0,
    "groups": [{"name": "tex", "channels": 32}, {"name": "sem", "channels": 16}],
    "train": {"lr": 1e-4, "betas": [0.9, 0.999], "ema": None},
    "data": "abc",
}


def test_save_and_load(tmp_path):
    path = save_checkpoint(tmp_path, 1200, Note("hello"), RECIPE)
    assert path == checkpoint_path(tmp_path, 1200) == tmp_path / "step-00001200"
    task = Note()
    assert load_checkpoint(path, task, RECIPE) == 1200 and task.text == "hello"
    state = json.loads((path / "state.json").read_text())
    sums = {"note.txt": hashlib.sha256(b"hello").hexdigest()}
    own = state.pop("checksum")
    assert state == {"step": 1200, "recipe": RECIPE, "versions": versions(), "sha256": sums}
    assert own == hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
    assert state["versions"]["torch"] == torch.__version__


def test_saving_again_replaces_the_whole_folder(tmp_path):
    path = save_checkpoint(tmp_path, 5, Note("old"), RECIPE)
    (path / "left over").write_text("x")
    save_checkpoint(tmp_path, 5, Note("new"), RECIPE)
    assert sorted(p.name for p in path.iterdir()) == ["note.txt", "state.json"]
    assert (path / "note.txt").read_text() == "new" and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_an_interrupted_save_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, 7, Note("half", fails=True), RECIPE)
    assert list(tmp_path.iterdir()) == [] and find_checkpoints(tmp_path) == {}


def test_an_interrupted_save_leaves_the_one_before(tmp_path):
    path = save_checkpoint(tmp_path, 7, Note("whole"), RECIPE)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, 7, Note("half", fails=True), RECIPE)
    task = Note()
    assert load_checkpoint(path, task, RECIPE) == 7 and task.text == "whole"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_find_lists_complete_checkpoints_by_step(tmp_path):
    for step in (900, 20, 123_456_789, 3):
        save_checkpoint(tmp_path, step, Note(), RECIPE)
    for other in (".step-00000050.1.tmp", ".step-00000060.1.old", "step-x", "step-5.bak", "ema"):
        (tmp_path / other).mkdir()
    found = find_checkpoints(tmp_path)
    assert list(found) == [3, 20, 900, 123_456_789]
    assert all(path == checkpoint_path(tmp_path, step) for step, path in found.items())
    assert find_checkpoints(tmp_path / "absent") == {}


def changed(**changes):
    return RECIPE | changes


DIFFERENCES = {
    "a value": (changed(seed=1), "seed was 0, now 1"),
    "a nested value": (changed(train=RECIPE["train"] | {"lr": 0.01}), "train.lr was 0.0001, now 0.01"),
    "an entry of a list": (
        changed(train=RECIPE["train"] | {"betas": [0.9, 0.95]}),
        "train.betas was [0.9, 0.999], now",
    ),
    "a new setting": (changed(flip=True), "flip was None, now True"),
    "a setting gone": ({k: v for k, v in RECIPE.items() if k != "data"}, "data was 'abc', now None"),
    "a section for a value": (changed(data={"path": "x"}), "data was 'abc', now {'path': 'x'}"),
    "None no more": (changed(train=RECIPE["train"] | {"ema": 0.9}), "train.ema was None, now 0.9"),
    "the first of two": (changed(seed=3, data="z"), "seed was 0, now 3"),
}


@pytest.mark.parametrize(("recipe", "difference"), DIFFERENCES.values(), ids=list(DIFFERENCES))
def test_another_recipe_is_refused_in_one_line_and_nothing_is_loaded(tmp_path, recipe, difference):
    path = save_checkpoint(tmp_path, 3, Note("old"), RECIPE)
    task = Note("untouched")
    with pytest.raises(UserError) as caught:
        load_checkpoint(path, task, recipe)
    text = str(caught.value)
    assert difference in text and str(path) in text and "resume=false" in text and "\n" not in text
    assert task.text == "untouched"


def test_the_order_of_settings_does_not_matter(tmp_path):
    path = save_checkpoint(tmp_path, 3, Note("x"), RECIPE)
    assert load_checkpoint(path, Note(), dict(reversed(RECIPE.items()))) == 3


@pytest.mark.parametrize("content", [None, "", "{", '{"step": 3, "recipe"'], ids=repr)
def test_a_damaged_state_gives_one_line(tmp_path, content):
    path = save_checkpoint(tmp_path, 3, Note("x"), RECIPE)
    if content is None:
        (path / "state.json").unlink()
    else:
        (path / "state.json").write_text(content)
    with pytest.raises(UserError) as caught:
        load_checkpoint(path, Note(), RECIPE)
    assert str(path / "state.json") in str(caught.value) and "\n" not in str(caught.value)


def edited(**changes):
    """As in a file of before it had a checksum of its own."""
    changes = {"checksum": None, **changes}
    return lambda state: {key: value for key, value in (state | changes).items() if value is not None}


STATES = {
    "another step": (edited(step=61), "says step 61, its folder step 60"),
    "a step that is true": (edited(step=True), "step: input should be a valid integer"),
    "a step that is text": (edited(step="60"), "step: input should be a valid integer"),
    "no list of checksums": (edited(sha256=None), "sha256: Field required"),
    "a list that is empty": (edited(sha256={}), "note.txt: no checksum is known of it"),
    "a list of something else": (edited(sha256={"note.txt": 5}), "sha256.note.txt: input should be a valid string"),
    "a checksum cut short": (edited(sha256={"note.txt": "ab"}), "sha256.note.txt: string should match"),
    "another checksum": (edited(sha256={"note.txt": "0" * 64}), "note.txt: damaged or missing"),
    "a file outside": (edited(sha256={"../x": "0" * 64}), "damaged or missing"),
    "no object": (lambda state: [state], "not the state of a checkpoint"),
    "no recipe": (edited(recipe=[]), "recipe: input should be a valid dictionary"),
}


@pytest.mark.parametrize(("edit", "words"), STATES.values(), ids=list(STATES))
def test_state_json_is_not_believed(tmp_path, edit, words):
    path = save_checkpoint(tmp_path, 60, Note("x"), RECIPE)
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(edit(state)))
    task = Note("untouched")
    with pytest.raises(Damaged) as caught:
        load_checkpoint(path, task, RECIPE)
    text = str(caught.value)
    assert words in text and f"remove {path} to go on" in text and "\n" not in text and task.text == "untouched"
    again = pickle.loads(pickle.dumps(caught.value))  # as it comes from another process
    assert str(again) == text


@pytest.mark.parametrize("bit", [0, 3, 5])
def test_no_bit_of_state_json_flips_unseen(tmp_path, bit):
    """In any of its bytes: step, recipe, versions, checksums, its own, or what stands between them."""
    path = save_checkpoint(tmp_path, 60, Note("x"), RECIPE)
    content = (path / "state.json").read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        (path / "state.json").write_bytes(changed)
        try:
            state = read_state(path)
        except Damaged as error:
            assert "state.json" in str(error) and "\n" not in str(error)
        else:
            assert state == before(path, content), (place, chr(changed[place]))  # white space for white space
    (path / "state.json").write_text(json.dumps(json.loads(content)))
    assert read_state(path).step == 60  # laid out otherwise it is the same


def before(path, content):
    (path / "state.json").write_bytes(content)
    return read_state(path)


def test_a_checkpoint_of_before_there_was_a_checksum(tmp_path):
    path = save_checkpoint(tmp_path, 60, Note("x"), RECIPE)
    state = json.loads((path / "state.json").read_text())
    del state["checksum"]
    write_json(path / "state.json", state)
    task = Note("")
    assert load_checkpoint(path, task, RECIPE) == 60 and task.text == "x"


def test_a_file_too_many_is_refused_but_not_what_tools_leave(tmp_path):
    path = save_checkpoint(tmp_path, 60, Note("x"), RECIPE)
    (path / ".DS_Store").write_text("")
    assert load_checkpoint(path, Note(), RECIPE) == 60
    (path / "more.safetensors").write_text("")
    with pytest.raises(Damaged, match=r"more\.safetensors: no checksum is known of it"):
        load_checkpoint(path, Note(), RECIPE)


def test_a_copy_under_another_name_is_the_checkpoint(tmp_path):
    path = save_checkpoint(tmp_path, 60, Note("x"), RECIPE)
    assert load_checkpoint(path.rename(tmp_path / "best"), Note(), RECIPE) == 60


# Tensors, modules, optimisers


def test_tensors_round_trip_bit_for_bit(tmp_path):
    tensors = {
        "float": torch.randn(3, 4),
        "strided": torch.randn(4, 3).T,
        "double": torch.randn(2, dtype=torch.float64, requires_grad=True),
        "count": torch.tensor(7),
        "half": torch.randn(2).bfloat16(),
        "empty": torch.zeros(0, 3),
    }
    save_tensors(tmp_path / "t.safetensors", tensors)
    again = load_tensors(tmp_path / "t.safetensors")
    assert set(again) == set(tensors)
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype and torch.equal(again[name], tensor.detach()), name


@pytest.mark.parametrize("size", [0, 4, 40, -1, None])
def test_damaged_and_missing_tensor_files(tmp_path, size):
    path = tmp_path / "t.safetensors"
    if size is not None:
        save_tensors(path, {"a": torch.randn(10)})
        path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError) as caught:
        load_tensors(path)
    assert f"{path}: not a readable safetensors file" in str(caught.value) and "\n" not in str(caught.value)


def network(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.SiLU(), nn.Linear(6, 3))
    model.register_parameter("table", nn.Parameter(torch.ones(4), requires_grad=False))
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("2.bias"), "key '2.bias' is missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "unknown key 'extra'"),
        (lambda t: t.update({"0.weight": torch.zeros(4, 6)}), "'0.weight' has shape (4, 6), the model needs (6, 4)"),
    ],
)
def test_a_file_of_another_model_is_refused_and_nothing_is_loaded(tmp_path, change, message):
    tensors = {name: t + 1 for name, t in network().state_dict().items()}
    change(tensors)
    save_tensors(tmp_path / "m.safetensors", tensors)
    model, before = network(), network().state_dict()
    with pytest.raises(UserError) as caught:
        load_module(model, tmp_path / "m.safetensors")
    assert message in str(caught.value) and str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def step(model, optimizer, number):
    """One step of training on data that depend on the step's number alone."""
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(8, 4, generator=generator)
    loss = (model(x) - x[:, :3].sin()).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def fused(model):
    return adamw((model, 0.01))


def plain(model):
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1)


def with_momentum(model):
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01, momentum=0.9)


@pytest.mark.parametrize("make", [fused, plain, with_momentum])
def test_training_goes_on_bit_for_bit(tmp_path, make):
    model = network()
    optimizer = make(model)
    for number in range(5):
        step(model, optimizer, number)
    save_tensors(tmp_path / "m.safetensors", model.state_dict())
    save_tensors(tmp_path / "o.safetensors", optimizer_tensors(model, optimizer))
    losses = [step(model, optimizer, number) for number in range(5, 10)]

    again = network(seed=1)
    other = make(again)
    step(again, other, 99)  # a state of its own, which loading must replace
    load_module(again, tmp_path / "m.safetensors")
    load_optimizer(again, other, load_tensors(tmp_path / "o.safetensors"))
    assert [step(again, other, number) for number in range(5, 10)] == losses
    ours, theirs = model.state_dict(), again.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_without_the_optimiser_s_state_it_would_not(tmp_path):
    """The control: the state matters."""
    model = network()
    optimizer = fused(model)
    for number in range(5):
        step(model, optimizer, number)
    again = network()
    again.load_state_dict(model.state_dict())
    other = fused(again)
    for number in range(5, 8):
        step(model, optimizer, number), step(again, other, number)
    assert not torch.equal(model[0].weight, again[0].weight)


def test_optimiser_state_is_keyed_by_parameter_name():
    model = network()
    optimizer = fused(model)
    assert optimizer_tensors(model, optimizer).keys() == {"stateless"}, "nothing yet"
    step(model, optimizer, 0)
    names = {
        f"{p}/{entry}"
        for p in ("0.weight", "0.bias", "2.weight", "2.bias")
        for entry in ("exp_avg", "exp_avg_sq", "step")
    }
    tensors = optimizer_tensors(model, optimizer)
    assert set(tensors) == names and tensors["2.bias/exp_avg"].shape == (3,)


def test_a_state_with_a_parameter_missing_is_refused_and_changes_nothing():
    """The predecessor resumed without the optimiser's state."""
    model = network()
    optimizer = fused(model)
    step(model, optimizer, 0)
    before = {key: value.clone() for key, value in optimizer_tensors(model, optimizer).items()}
    for tensors in ({}, {key: value for key, value in before.items() if not key.startswith("0.weight/")}):
        with pytest.raises(UserError, match=r"'0\.weight' is missing"):
            load_optimizer(model, optimizer, tensors)
        after = optimizer_tensors(model, optimizer)
        assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)


def test_adamw_is_the_paper_s():
    """Table 5: betas 0.9 and 0.999, no weight decay; only what trains; a learning rate for each module."""
    one, two = network(0), network(1)
    optimizer = adamw((one, 0.1), (two, 0.2))
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]
    for group in optimizer.param_groups:
        assert group["betas"] == (0.9, 0.999) and group["weight_decay"] == 0 and len(group["params"]) == 4
    assert adamw((one, 0.1), weight_decay=0.3).param_groups[0]["weight_decay"] == 0.3
