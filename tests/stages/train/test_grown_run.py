"""Runs that begin as another network: with a group more, frozen in part, stopped and gone on with; SFD's file."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lwd.config import dump, load
from lwd.errors import UserError
from lwd.models import LightningDiT, load_model, load_sfd_checkpoint
from lwd.models.sfd import SFD_LAYOUT
from lwd.models.start import freeze, grown_order, read_giver, start_from
from lwd.stages import train
from lwd.stages.experiment import Experiment

DIGITS = Path(__file__).parents[3] / "configs" / "digits.yaml"
SFD_FILE = Path(__file__).parents[2] / "models" / "sfd_tiny.pt"


def configured(overrides, *more):
    return load(Experiment, DIGITS, [*overrides, "train.schedule=synchronous", *more])


def test_a_run_grows_freezes_stops_and_goes_on(overrides, tmp_path):
    """One group to two, with two frozen patterns: recorded, the frozen parts as they were, a resume bit for bit."""
    alone = ["groups=[{name: tex, channels: 4}]", "leader=tex", "train.name=alone"]
    giver = train.run(configured(overrides, *alone))
    patterns = ("x_embedder.*", "blocks.0.*")
    more = [f"train.init_from={giver}", f"train.freeze=[{', '.join(map(repr, patterns))}]", "train.init_classes={0: 3}"]
    whole = configured(overrides, *more, "train.name=whole")
    end = train.run(whole)
    again = tmp_path / "again.yaml"
    again.write_text(dump(whole))
    assert load(Experiment, again) == whole

    said = json.loads((end.parent / "start.json").read_text())
    assert said["from"] == str(giver) and set(said["grown"]) == {
        "x_embedder.weight", "y_embedder.weight", "final_layer.linear.weight", "final_layer.linear.bias",
    }  # fmt: skip
    assert said["new"] == [f"t_embedder.by_group.sem.mlp.{key}" for key in ("0.weight", "0.bias", "2.weight", "2.bias")]

    old, new = load_file(giver / "ema" / "model.safetensors"), load_file(end / "model" / "model.safetensors")
    frozen = [name for name in new if name.startswith(("x_embedder.", "blocks.0."))]
    for name in frozen:
        assert torch.equal(new[name][:, :4] if name == "x_embedder.weight" else new[name], old[name]), name
    assert not torch.equal(new["blocks.1.attn.qkv.weight"], old["blocks.1.attn.qkv.weight"])
    optimiser = load_file(end / "optimizer.safetensors")
    assert optimiser and not [key for key in optimiser for name in frozen if key.startswith(f"model.{name}/")]

    train.run(configured(overrides, *more, "train.name=halves", "train.steps=5"))
    halves = train.run(configured(overrides, *more, "train.name=halves"))
    for name in ("model/model.safetensors", "ema/model.safetensors", "optimizer.safetensors"):
        first, second = load_file(end / name), load_file(halves / name)
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    assert load_model(end / "ema").t_embedder.added == ("sem",)
    with pytest.raises(UserError, match="init_classes"):
        train.run(configured(overrides, *more[:2], "train.init_classes={0: 4}", "train.name=whole", "train.steps=9"))


def test_patterns_that_match_nothing_or_everything():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match=r"'2.\*' matches no parameter; the nearest are") as caught:
        freeze(model, ["2.*"])
    assert "\n" not in str(caught.value)
    assert freeze(model, ["0.*"]) == 2 and [p.requires_grad for p in model.parameters()] == [False, False, True, True]
    with pytest.raises(UserError, match="match every parameter"):
        freeze(model, ["*"])


def test_classes_without_a_start_are_refused(overrides):
    with pytest.raises(UserError, match="init_classes: says what the classes of init_from become"):
        configured(overrides, "train.init_classes={0: 1}")


def test_an_sfd_file_gives_its_function(tmp_path):
    """Its semantics' time is embedded first, and stays so in the network that begins as it."""
    theirs, giver = load_sfd_checkpoint(SFD_FILE), read_giver(SFD_FILE)
    arguments = {key: giver.record.arguments[key] for key in ("depth", "width", "heads", "input_size", "num_classes")}
    model = LightningDiT(SFD_LAYOUT, **arguments, time_order=grown_order(giver.record, SFD_LAYOUT)).eval()
    account = start_from(model, giver)
    assert not account.new and not account.grown
    z, times, labels = torch.randn(2, *model.shape), torch.rand(2, 2), torch.tensor([0, model.null_label])
    assert torch.equal(model(z, times, labels), theirs(z, times, labels))
    with pytest.raises(UserError, match="no such"):
        read_giver(tmp_path / "none.pt")
