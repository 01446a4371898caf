"""Training that begins with another network's weights."""

from pathlib import Path

import pytest
import torch

from lwd.config import load
from lwd.errors import UserError
from lwd.models import load_model
from lwd.models.start import read_giver, start_from
from lwd.runtime.checkpoint import read_state
from lwd.stages import train
from lwd.stages.experiment import Experiment

DIGITS = Path(__file__).parents[3] / "configs" / "digits.yaml"


def configured(overrides, *more):
    return load(Experiment, DIGITS, [*overrides, *more])


@pytest.fixture
def joint(overrides):
    return train.run(configured(overrides, "train.times=independent", "train.name=joint"))


def test_a_joint_network_goes_on_under_a_schedule(joint, overrides, monkeypatch):
    """The first loss is that of the joint network's average, not of a fresh one."""
    begun = {}
    original = train.run.__globals__["DenoiserObjective"]

    def seen(model, *arguments):
        begun.update({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return original(model, *arguments)

    monkeypatch.setitem(train.run.__globals__, "DenoiserObjective", seen)
    more = ("train.schedule=offset:0.3", "train.name=tuned", f"train.init_from={joint}")
    end = train.run(configured(overrides, *more))
    average = load_model(joint / "ema").state_dict()
    assert begun.keys() == average.keys() and all(torch.equal(begun[name], average[name]) for name in average)
    assert len(read_state(end).recipe["init_from"]) == 12
    assert read_giver(joint.parent).fingerprint == read_state(end).recipe["init_from"]  # of a run: its newest
    with pytest.raises(UserError, match="init_from"):  # a checkpoint of another start
        train.run(configured(overrides, *more[:2], "train.steps=9"))


def test_what_does_not_fit_is_one_line(joint, overrides, tmp_path):
    with pytest.raises(UserError, match=r"10 classes there and 12 here; .* train.init_classes="):
        train.run(
            configured(overrides, f"train.init_from={joint}", "train.schedule=synchronous", "model.num_classes=12")
        )
    with pytest.raises(UserError, match="no such checkpoint folder"):
        train.run(configured(overrides, f"train.init_from={tmp_path / 'none'}", "train.schedule=synchronous"))
    with pytest.raises(UserError, match="it is another network"):
        start_from(torch.nn.Linear(2, 2), read_giver(joint))
    file = joint / "ema" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="damaged or missing"):
        read_giver(joint)
