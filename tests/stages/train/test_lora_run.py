"""Adapters: trained alone, saved apart, merged in every folder, and read by peft itself."""

from pathlib import Path

import pytest
import torch

from lwd.config import load
from lwd.errors import UserError
from lwd.models import load_model
from lwd.models.start import read_giver
from lwd.models.start.lora import adapted_files, add_adapters, load_adapters, merged
from lwd.runtime.checkpoint import Files, load_tensors, read_state
from lwd.stages import train
from lwd.stages.experiment import Experiment
from lwd.stages.train.export import export
from lwd.stages.train.run import TrainTask

peft = pytest.importorskip("peft")
DIGITS = Path(__file__).parents[3] / "configs" / "digits.yaml"


@pytest.fixture
def base(overrides):
    return train.run(load(Experiment, DIGITS, [*overrides, "train.schedule=synchronous", "train.name=base"]))


@pytest.fixture
def config(overrides, base):
    more = [f"train.init_from={base}", "train.schedule=offset:0.3", "train.lora={rank: 2, alpha: 8}", "train.lr=1e-2"]
    return lambda *extra: load(Experiment, DIGITS, [*overrides, *more, *extra])


def inputs(model):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(3, *model.shape, generator=generator)
    return z, torch.rand(3, 2, generator=generator), torch.tensor([0, 4, 9])


def moved(model):
    """Adapters that do something: B is zero at first."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(3 * torch.randn(parameter.shape, generator=generator))
    return model


def test_saved_loaded_and_merged_they_are_one_function(base, tmp_path):
    """1e-6 in float64 (1e-12 there): merged weights, adapters loaded into the base by us, and by peft's own model."""
    model = load_model(base / "ema").double()
    z, times, labels = inputs(model)
    before = model(z.double(), times.double(), labels)
    assert add_adapters(model, 2, 8, ("blocks.*",)) == 5 * len(model.blocks)
    assert torch.equal(model(z.double(), times.double(), labels), before), "B begins at zero"
    wanted = moved(model)(z.double(), times.double(), labels)
    assert (wanted - before).abs().max() > 1e-2
    (tmp_path / "saved").mkdir()
    Files(adapted_files(model, ".")).save(tmp_path / "saved")

    plain = load_model(base / "ema").double()
    plain.load_state_dict(merged(model))
    again = load_model(base / "ema").double()
    add_adapters(again, 2, 8, ("blocks.*",))
    load_adapters(again, tmp_path / "saved")
    theirs = peft.PeftModel.from_pretrained(load_model(base / "ema").double(), tmp_path / "saved")
    for one in (plain, again, theirs):
        torch.testing.assert_close(one(z.double(), times.double(), labels), wanted, rtol=0, atol=1e-6)


def test_a_run_trains_the_adapters_alone_stops_and_goes_on(config, base, tmp_path, monkeypatch):
    whole = train.run(config("train.name=whole"))
    names = {key.rpartition("/")[0] for key in load_tensors(whole / "optimizer.safetensors")}
    assert names and all(".lora_" in name for name in names)
    with monkeypatch.context() as patch:
        patch.setattr(TrainTask, "stop_after", lambda self, step: step == 5)
        train.run(config("train.name=halves", "compute.checkpoint_every=5"))
    ended = train.run(config("train.name=halves", "compute.checkpoint_every=5"))
    assert read_state(ended).sha256 == read_state(whole).sha256
    given, tuned = read_giver(base).tensors, load_tensors(whole / "ema" / "model.safetensors")
    assert given.keys() == tuned.keys(), "the folder is that of a plain network"
    changed = {name for name in given if not torch.equal(given[name], tuned[name])}
    assert changed and all(name.startswith("blocks.") and name.endswith(".weight") for name in changed)
    export(whole, tmp_path / "exported")
    assert {path.name for path in (tmp_path / "exported").iterdir()} == {
        "README.md",
        "config.yaml",
        "data",
        "config.json",
        "model.safetensors",
        "schedule.json",
    }
    exported = load_tensors(tmp_path / "exported" / "model.safetensors")
    assert all(torch.equal(exported[name], tensor) for name, tensor in tuned.items())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["train.lora.targets=[blocks.*.atn.qkv]"], "matches no linear layer; the nearest are .*attn.qkv"),
        (["train.init_from=null"], "lora: adapts a trained network; say which by init_from"),
        (["train.freeze=[blocks.*]"], "lora: freezes all but its adapters"),
        (["train.lora.rank=0"], "rank"),
        (["compute.shard=true"], "adapters are not divided"),
    ],
)
def test_what_does_not_fit_is_one_line(config, more, words):
    with pytest.raises(UserError, match=words) as error:
        train.run(config(*more))
    assert "\n" not in str(error.value)


def test_without_peft_the_line_says_what_to_install(config, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(UserError, match=r"pip install 'lwd\[lora\]'"):
        train.run(config())


def test_adapters_of_another_rank_are_refused(config):
    train.run(config("train.name=one", "train.steps=4"))
    with pytest.raises(UserError, match=r"train\.lora\.rank was 2, now 4"):
        train.run(config("train.name=one", "train.lora.rank=4"))
