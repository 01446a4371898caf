"""SFD's released checkpoints: read as they are, refused where they are not, and written back.

``sfd_tiny.pt`` is a file as SFD's trainer leaves it, with a pickled OmegaConf config, which PyTorch's own safe reader
stops at. It was written by `write_with_omegaconf` below, under torch 2.13 and omegaconf 2.4.0.
"""

import io
import os
import pickle
import re
import struct
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.serialization import MAGIC_NUMBER, PROTOCOL_VERSION
from typer.testing import CliRunner

from lwd.cli.main import app
from lwd.errors import UserError
from lwd.groups import Group, Layout
from lwd.models import LightningDiT, create, load_model, load_sfd_checkpoint, save_sfd_checkpoint
from lwd.models.pretrained import load_checkpoint_model
from lwd.runtime.untrusted import load_foreign
from lwd.schedules import Schedule
from released_dit import our_name, reference, released_s1

WITH_OMEGACONF = Path(__file__).parent / "sfd_tiny.pt"


def rotary(head, grid):
    """SFD's buffers, as EVA-02's `VisionRotaryEmbeddingFast` computes them: every frequency twice in a row."""
    frequencies = 1.0 / (10000.0 ** (torch.arange(0, head // 2, 2).float() / (head // 2)))
    angles = (torch.arange(grid).float()[:, None] * frequencies).repeat_interleave(2, dim=-1)
    both = torch.cat([angles[:, None].expand(-1, grid, -1), angles[None].expand(grid, -1, -1)], dim=-1)
    return both.cos().reshape(-1, head), both.sin().reshape(-1, head)


def sfd_shapes(width=384, head=64, depth=12, classes=1000, grid=16, patch=1, channels=48, projector=(2048, 768)):
    """Released names -> shapes."""
    half, hidden = width // 2, int(2 / 3 * 4 * width)
    shapes = {
        "pos_embed": (1, grid**2, width),
        "x_embedder.proj.weight": (width, channels, patch, patch),
        "x_embedder.proj.bias": (width,),
        "y_embedder.embedding_table.weight": (classes + 1, width),
        "feat_rope.freqs_cos": (grid**2, head),
        "feat_rope.freqs_sin": (grid**2, head),
        "final_layer.norm_final.weight": (width,),
    }
    linears = {"final_layer.linear": (patch**2 * channels, width), "final_layer.adaLN_modulation.1": (2 * width, width)}
    for group in ("sem", "tex"):
        linears |= {f"t_embedder_{group}.mlp.0": (half, 256), f"t_embedder_{group}.mlp.2": (half, half)}
    for i in range(depth):
        norms = {"norm1": width, "norm2": width, "attn.q_norm": head, "attn.k_norm": head}
        shapes |= {f"blocks.{i}.{name}.weight": (size,) for name, size in norms.items()}
        linears |= {
            f"blocks.{i}.attn.qkv": (3 * width, width),
            f"blocks.{i}.attn.proj": (width, width),
            f"blocks.{i}.mlp.w12": (2 * hidden, width),
            f"blocks.{i}.mlp.w3": (width, hidden),
            f"blocks.{i}.adaLN_modulation.1": (6 * width, width),
        }
    if projector:
        sizes = (width, projector[0], projector[0], projector[1])
        linears |= {f"repa_projector.{2 * i}": (sizes[i + 1], sizes[i]) for i in range(3)}
    weights = {f"{name}.weight": shape for name, shape in linears.items()}
    return shapes | weights | {f"{name}.bias": shape[:1] for name, shape in linears.items()}


TINY = {"width": 16, "head": 16, "depth": 1, "classes": 3, "grid": 2, "projector": None}


def released_state(shapes, seed=0):
    """Random tensors of the released names and shapes (of the scale of trained ones), with the right fixed tables."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        state[name] = torch.randn(shape, generator=generator) / (shape[-1] if len(shape) > 1 else 4) ** 0.5
        if "norm" in name:
            state[name] += 1
    tokens, head = shapes["feat_rope.freqs_cos"]
    grid = int(tokens**0.5)
    state["feat_rope.freqs_cos"], state["feat_rope.freqs_sin"] = rotary(head, grid)
    width = shapes["pos_embed"][-1]
    place = np.arange(grid)[:, None] * 10000.0 ** (-np.arange(width // 4) / (width // 4))
    axis = np.concatenate([np.sin(place), np.cos(place)], axis=1)
    table = [np.concatenate([axis[column], axis[row]]) for row in range(grid) for column in range(grid)]
    state["pos_embed"] = torch.tensor(np.array(table), dtype=torch.float32)[None]
    return state


@pytest.fixture(scope="module")
def s1(tmp_path_factory):
    """A file with the tensors of a released S/1 checkpoint, prefixed by DDP, the averaged and the live ones unequal."""
    path = tmp_path_factory.mktemp("sfd") / "0400000.pt"
    ema, live = released_state(sfd_shapes()), released_state(sfd_shapes(), seed=1)
    prefixed = {f"module.{name}": tensor for name, tensor in live.items()}
    torch.save({"model": prefixed, "ema": ema, "opt": {"state": {}, "param_groups": [{"lr": 1e-4}]}}, path)
    return path, ema, live


def write_with_omegaconf():
    """How ``sfd_tiny.pt`` came about; omegaconf is not among the dependencies."""
    from omegaconf import OmegaConf  # type: ignore[import-not-found]

    config = OmegaConf.create({"model": {"type": "LightningDiT-S/1", "sizes": [1, 2]}, "same": "${model.type}"})
    state = released_state(sfd_shapes(**TINY))
    live = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"model": live, "ema": state, "opt": {"state": {}}, "config": config}, WITH_OMEGACONF)


def write(path, state=None, **more):
    """A small checkpoint on the spot."""
    state = released_state(sfd_shapes(**TINY)) if state is None else state
    torch.save({"model": state, "ema": state, "opt": {}, **more}, path)
    return path


def without_rotary(state):
    return {our_name(name): tensor for name, tensor in state.items() if "rope" not in name}


def assert_same(ours, theirs):
    """Bit for bit, but for the fixed rotary tables: they are not stored here, and cosines differ by library."""
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-6 if "rope" in name else 0)


def test_the_description_of_the_released_tensors_is_the_published_one():
    assert sfd_shapes() == released_s1()


def test_a_released_s1_computes_the_released_function(s1):
    path, ema, _ = s1
    model = load_sfd_checkpoint(path)
    assert not model.training
    expected = without_rotary(ema)
    assert {name: t.tolist() for name, t in model.state_dict().items() if t.ndim == 1} == {
        name: t.tolist() for name, t in expected.items() if t.ndim == 1
    }
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 48, 16, 16, generator=generator)
    times, labels = torch.rand(2, 2, generator=generator), torch.tensor([3, 1000])
    with torch.no_grad():
        v, projected = model(z, times, labels, project=True)
    v_expected, projected_expected = reference(model, z, times, labels, heads=6, order=("sem", "tex"))
    # The NumPy network runs in float64, ours in float32, whose rounding (6e-8) grows over 12 blocks: the bar is 1e-5 of
    # the output's own size.
    for ours, exact in ((v, v_expected), (projected, projected_expected)):
        assert float((ours - exact).norm() / exact.norm()) < 1e-5
        assert float((ours - exact).abs().max() / exact.std()) < 1e-4
        assert exact.std() > 0.1


def test_which_weights(s1):
    path, ema, live = s1
    for which, state in (("ema", ema), ("model", live)):
        model = load_sfd_checkpoint(path, which)
        assert torch.equal(model.blocks[3].mlp.w12.weight, state["blocks.3.mlp.w12.weight"])


def test_round_trip_is_bit_identical(s1, tmp_path):
    path, ema, _ = s1
    save_sfd_checkpoint(load_sfd_checkpoint(path), tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert set(back) == {"model", "ema"}
    for state in back.values():
        assert {name: tuple(t.shape) for name, t in state.items()} == released_s1()
        assert_same(state, ema)


@pytest.mark.parametrize(
    "options", [{"patch": 2}, {"patch": 1, "projector": (8, 5)}, {"width": 32, "depth": 3}], ids=str
)
def test_other_sizes_are_read_off_the_shapes(tmp_path, options):
    state = released_state(sfd_shapes(**(TINY | options)))
    model = load_sfd_checkpoint(write(tmp_path / "a.pt", state))
    z, times, labels = torch.randn(2, 48, *2 * [2 * options.get("patch", 1)]), torch.rand(2, 2), torch.tensor([0, 3])
    with torch.no_grad():
        v = model(z, times, labels)
    if model.repa_projector is None:
        model.repa_block = 0  # the NumPy network then projects nothing
        heads = options.get("width", 16) // 16
        expected = reference(model, z, times, labels, heads=heads, order=("sem", "tex"))[0]
        assert float((v - expected).norm() / expected.norm()) < 1e-5  # as above
    save_sfd_checkpoint(model, tmp_path / "b.pt")
    back = torch.load(tmp_path / "b.pt", weights_only=True)["ema"]
    assert set(back) == set(state)
    assert_same(back, state)


def test_a_pickled_omegaconf_config_does_not_stop_the_reader():
    with pytest.raises(Exception, match="omegaconf"):
        torch.load(WITH_OMEGACONF, weights_only=True)
    state = released_state(sfd_shapes(**TINY))
    model = load_sfd_checkpoint(WITH_OMEGACONF)
    for name, tensor in without_rotary(state).items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=0, atol=1e-6)  # cosines of another libm
    config = load_foreign(WITH_OMEGACONF)["config"]
    assert (type(config).__module__, type(config).__name__) == ("omegaconf.dictconfig", "DictConfig")
    assert not vars(config), "an inert placeholder keeps nothing"


def test_half_precision_checkpoints_are_read(tmp_path):
    state = {k: v.bfloat16() for k, v in released_state(sfd_shapes(**TINY)).items()}
    model = load_sfd_checkpoint(write(tmp_path / "a.pt", state))
    assert all(
        torch.equal(t, state_value.float())
        for t, state_value in zip(
            model.state_dict().values(), (without_rotary(state)[n] for n in model.state_dict()), strict=True
        )
    )


def test_a_model_trained_here_runs_in_sfds_code(tmp_path):
    """Ours concatenates the times in layout order; SFD's form of it must be the same function, semantics first."""
    layout = Layout([Group("tex", 32), Group("sem", 16)])
    ours = LightningDiT(layout, 2, 3, depth=2, width=16, heads=1)
    with torch.no_grad():
        for parameter in ours.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    save_sfd_checkpoint(ours, tmp_path / "a.pt")
    theirs = load_sfd_checkpoint(tmp_path / "a.pt")
    assert list(theirs.t_embedder.by_group) == ["sem", "tex"] and list(ours.t_embedder.by_group) == ["tex", "sem"]
    z, times, labels = torch.randn(4, 48, 2, 2), torch.rand(4, 2), torch.tensor([0, 1, 2, 3])
    with torch.no_grad():
        # The condition's channels are summed in another order: float32 rounding of numbers of order 1.
        torch.testing.assert_close(theirs(z, times, labels), ours(z, times, labels), rtol=1e-4, atol=1e-5)
        assert ours(z, times, labels).std() > 0.1


def test_another_layout_is_refused(tmp_path):
    path = write(tmp_path / "a.pt")
    three = Layout([Group("tex", 32), Group("sem", 8), Group("depth", 8)])
    with pytest.raises(
        UserError, match=r"a.pt: a checkpoint of the groups sem, tex .*the layout is \[tex:32, sem:8, dep"
    ):
        load_sfd_checkpoint(path, layout=three)
    with pytest.raises(UserError, match="channel order tex, sem"):
        load_sfd_checkpoint(path, layout=Layout([Group("sem", 16), Group("tex", 32)]))
    with pytest.raises(UserError, match="a checkpoint of 48 channels"):
        load_sfd_checkpoint(path, layout=Layout([Group("tex", 32), Group("sem", 8)]))
    assert load_sfd_checkpoint(path, layout=Layout([Group("tex", 40), Group("sem", 8)])).layout.sizes == [40, 8]
    model = create("LightningDiT-Mini/1", three, 2, 3)
    with pytest.raises(UserError, match="SFD's code knows the groups"):
        save_sfd_checkpoint(model, tmp_path / "b.pt")
    assert not (tmp_path / "b.pt").exists()


class Attack:
    """Runs a command when unpickled."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", ["config", "ema"])
@pytest.mark.parametrize("kind", ["os.system", "subprocess.Popen", "exec", "getattr", "open", "rmtree"])
def test_a_malicious_pickle_is_refused_and_nothing_runs(tmp_path, kind, place, zipped):
    mark = tmp_path / "ran"
    attacks = {
        "os.system": Attack(os.system, f"touch {mark}"),
        "subprocess.Popen": Attack(subprocess.Popen, ["touch", str(mark)]),
        "exec": Attack(exec, f"open({str(mark)!r}, 'w')"),
        "getattr": Attack(getattr, mark, "touch"),
        "open": Attack(open, str(mark), "w"),
        "rmtree": Attack(__import__("shutil").rmtree, str(tmp_path)),
    }
    path = tmp_path / "a.pt"
    payload = {"model": {}, "ema": released_state(sfd_shapes(**TINY)), "opt": {}, place: attacks[kind]}
    torch.save(payload, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"a.pt: refused, its pickle asks for .*nothing in it was run"):
        load_sfd_checkpoint(path)
    assert not mark.exists() and path.exists()


def test_a_pickle_cannot_change_what_it_calls(tmp_path):
    """The older format's reader writes a file beside a "module" whose source changed, under the name that the pickle
    gave it. Here the module is a function of PyTorch's, renamed with BUILD: found by a reviewer, refused since."""

    def text(x):
        return b"X" + struct.pack("<I", len(x)) + x.encode()

    def function(module, name):
        return text(module) + text(name) + b"\x93"

    mark = tmp_path / "mark"
    rename = b"(N}(" + text("__name__") + text(str(mark)) + text("dump_patches") + b"\x88utb"
    renamed = function("torch._utils", "_rebuild_tensor_v2") + rename
    body = b"\x80\x04(" + text("module") + renamed + text("header") + text("line") + b"tQ."
    legacy = io.BytesIO()
    for part in (MAGIC_NUMBER, PROTOCOL_VERSION, {"little_endian": True}):
        pickle.dump(part, legacy, protocol=2)
    legacy.write(body)
    pickle.dump([], legacy, protocol=2)
    (tmp_path / "old.pt").write_bytes(legacy.getvalue())
    torch.save({"ema": Attack(len, "x")}, tmp_path / "new.pt")
    with zipfile.ZipFile(tmp_path / "new.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "new.pt", "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, b"\x80\x04" + renamed + b"." if name.endswith("data.pkl") else content)
    for file in ("old.pt", "new.pt"):
        with pytest.raises(UserError, match="refused, its pickle asks for"):
            load_foreign(tmp_path / file)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new.pt", "old.pt"]
    assert torch._utils._rebuild_tensor_v2.__name__ == "_rebuild_tensor_v2"


def test_names_in_a_file_cannot_forge_lines(tmp_path):
    torch.save({"ema": 1, "a\nlwd: wrote everything\x1b[2J": 2}, tmp_path / "a.pt")
    result = CliRunner().invoke(app, ["convert", str(tmp_path / "a.pt"), str(tmp_path / "out")])
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and "\x1b" not in result.stderr


def test_the_attacks_would_work(tmp_path):
    """Without the restricted reader the file above does run: else the test could not fail."""
    torch.save(Attack(os.system, f"touch {tmp_path / 'ran'}"), tmp_path / "a.pt")
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


def _cut(path, state):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _rewrite(change):
    def damage(path, state):
        write(path, change(state))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "a.pt: cut short, damaged, or no PyTorch file"),
        (lambda path, state: path.write_bytes(b""), "cut short, damaged, or no PyTorch file"),
        (lambda path, state: path.unlink(), "no such file"),
        (lambda path, state: torch.save(torch.ones(3), path), "holds no state dict 'ema' .it has Tensor"),
        (lambda path, state: torch.save({"model": state, "opt": {}}, path), "no state dict 'ema' .it has model, opt"),
        (_rewrite(lambda s: {**s, "pos_embed": "text"}), r"ema\['pos_embed'\] is not a tensor but a str"),
        (
            _rewrite(lambda s: {k.replace("mlp.w3", "mlp.fc2"): v for k, v in s.items()}),
            "key 'blocks.0.mlp.w3.weight' is missing",
        ),
        (_rewrite(lambda s: s | {"blocks.0.attn.gate": torch.ones(2)}), "unknown key 'blocks.0.attn.gate'"),
        (
            _rewrite(lambda s: s | {"blocks.0.attn.proj.weight": torch.ones(16, 8)}),
            r"'blocks.0.attn.proj.weight' has shape \(16, 8\), the model needs \(16, 16\)",
        ),
        (_rewrite(lambda s: {k: v for k, v in s.items() if "rope" not in k}), "'feat_rope.freqs_cos' is missing"),
        (_rewrite(lambda s: s | {"feat_rope.freqs_sin": torch.ones(4, 16)}), "another rotary embedding"),
        (_rewrite(lambda s: {k: v for k, v in s.items() if "t_emb" not in k}), "no time embedder"),
        (_rewrite(lambda s: s | {"feat_rope.freqs_sin": torch.full((4, 16), torch.nan)}), "not finite"),
        (_rewrite(lambda s: s | {"pos_embed": torch.ones(1, 4, 16, dtype=torch.int64)}), "not a plain tensor of real"),
        (_rewrite(lambda s: s | {"pos_embed": torch.ones(1, 1, 1).expand(1, 4, 10**9)}), "not a plain tensor of real"),
        (
            _rewrite(lambda s: s | {"blocks.9999999999.norm1.weight": torch.ones(16)}),
            "'blocks.1.norm1.weight' is missing",
        ),
        (
            _rewrite(lambda s: {"t_embedder_sem.a": torch.ones(1), "t_embedder_tex.a": torch.ones(1)}),
            "size cannot be read",
        ),
        (_rewrite(lambda s: s | {"blocks.0.attn.q_norm.weight": torch.ones(0)}), "size cannot be read"),
    ],
)
def test_damaged_and_foreign_files_give_one_line(tmp_path, damage, message):
    path = write(tmp_path / "a.pt")
    damage(path, released_state(sfd_shapes(**TINY)))
    with pytest.raises(UserError, match=message) as error:
        load_sfd_checkpoint(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_convert_there_and_back(tmp_path):
    run = CliRunner().invoke
    source, folder, back = WITH_OMEGACONF, tmp_path / "model", tmp_path / "back.pt"
    there = run(app, ["convert", str(source), str(folder), "--schedule", "offset:0.3"])
    assert there.exit_code == 0 and "groups [tex:32, sem:16], 3 classes, ema weights" in there.output
    assert "schedule: offset:0.3" in there.output
    assert {p.name for p in folder.iterdir()} >= {"config.json", "model.safetensors", "schedule.json"}
    assert Schedule.load(folder / "schedule.json").hash() == Schedule.offset(("tex", "sem"), "sem", 0.3).hash()
    for model in (load_model(folder), LightningDiT.from_pretrained(folder)):
        assert list(model.t_embedder.by_group) == ["sem", "tex"]
    assert run(app, ["convert", str(folder), str(back)]).exit_code == 0
    state = torch.load(back, weights_only=True)["ema"]
    assert_same(state, released_state(sfd_shapes(**TINY)))
    for arguments in (
        [source, folder],
        [folder, back],
        [source, tmp_path / "x", "--which", "emma"],
        [back, back],
        [source, tmp_path / "x", "--schedule", "ofset:0.3"],
        [source, tmp_path / "x", "--schedule", "learned"],
        [source, tmp_path / "x", "--schedule", "none.json"],
        [folder, tmp_path / "x", "--schedule", "offset:0.3"],
    ):
        result = run(app, ["convert", *map(str, arguments)])
        assert result.exit_code == 2 and result.stderr.startswith("lwd: ") and result.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_no_schedule_is_guessed(tmp_path):
    """Nothing in the file says what it was trained under; without `--schedule` the folder has none, and says so."""
    folder = tmp_path / "model"
    result = CliRunner().invoke(app, ["convert", str(WITH_OMEGACONF), str(folder)])
    assert result.exit_code == 0 and "no schedule" in result.output
    assert {p.name for p in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert "no schedule.json" in (folder / "README.md").read_text()
    with pytest.raises(UserError, match=r"a network without schedule\.json, and none is guessed") as error:
        load_checkpoint_model(folder)
    (command,) = re.findall(r"by `lwd (schedule save [^`]+)`", str(error.value))
    words = command.replace("FILE|offset:0.3|synchronous", "power:2").replace("GROUP", "sem").split()
    assert CliRunner().invoke(app, words).exit_code == 0  # the line's own way out
    assert load_checkpoint_model(folder)[1]["tex"].formula() == "τ^2"


def test_a_converted_card_says_where_the_schedule_is_from(tmp_path):
    learned = Schedule.learnable(("tex", "sem"), "sem")
    learned.provenance["lambda"] = 0.04
    learned.save(tmp_path / "mine.json")
    for name, given, origin in (
        ("a", "synchronous", "synchronous, given to lwd convert"),
        ("b", tmp_path / "mine.json", f"learned at lambda 0.04; {tmp_path / 'mine.json'}, given to lwd convert"),
    ):
        arguments = ["convert", str(WITH_OMEGACONF), str(tmp_path / name), "--schedule", str(given)]
        assert CliRunner().invoke(app, arguments).exit_code == 0
        schedule = load_checkpoint_model(tmp_path / name)[1]
        card = (tmp_path / name / "README.md").read_text()
        assert schedule.origin == origin and f"`{schedule.hash()}`, in schedule.json: {origin} |" in card
        assert "sfd_tiny.pt" in card
    Schedule.synchronous(("sem", "tex")).save(tmp_path / "other.json")
    arguments = ["convert", str(WITH_OMEGACONF), str(tmp_path / "c"), "--schedule", str(tmp_path / "other.json")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and "schedule has groups ['sem', 'tex']" in result.stderr
    assert not (tmp_path / "c").exists()
