"""A curve of the user's own in the commands: learned, saved, trained under and sampled, with no edit of the library."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lwd.config import load
from lwd.errors import UserError
from lwd.schedules import Schedule
from lwd.stages import probe, sample, train
from lwd.stages.experiment import Experiment

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"
MODULE = """
import torch
from torch import nn
from lwd.schedules import Curve

class Slow(Curve):
    '''t = tau^(1 + a), a = softplus(raw).'''
    kind = "slow-of-a-test"
    settings = ("first",)

    def __init__(self, first=-4.0):
        super().__init__()
        self.first = first
        self.raw = nn.Parameter(torch.tensor([first]))

    def forward(self, tau):
        power = 1 + nn.functional.softplus(self.raw.to(tau.dtype))
        return tau**power, power * tau ** (power - 1)
"""


def test_from_the_probe_to_samples(overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_curves_of_a_test.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    more = [*overrides, "imports=[own_curves_of_a_test]", "probe.family=slow-of-a-test", "probe.curve={first: -3.0}"]
    config = load(Experiment, DIGITS, [*more, "probe.rho_lr=0.3"])
    schedule = probe.run(config)
    assert schedule["tex"].kind == "slow-of-a-test" and schedule["sem"].kind == "identity"
    assert not torch.equal(schedule["tex"].parameter_vector(), torch.tensor([-3.0]))
    path = config.output / "probe" / "schedule.json"
    assert Schedule.load(path).hash() == schedule.hash()
    trained = train.run(load(Experiment, DIGITS, [*more, "probe.rho_lr=0.3", f"train.schedule.path={path}"]))
    folder = sample.run(load(Experiment, DIGITS, [*more, f"sample.checkpoint={trained}", "sample.trace=0"]))
    assert (folder / "samples.json").is_file()


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("probe.family=nonsense", r"probe: .*unknown curve kind 'nonsense'; known: .*polynomial"),
        ("probe={family: convex-spline, curve: {bnis: 4}}", "no setting bnis; it has bins"),
        ("imports=[no_such_module_here]", "no module 'no_such_module_here' is installed"),
    ],
)
def test_what_cannot_be_made_is_said_with_the_config(overrides: list[str], override: str, line: str) -> None:
    with pytest.raises(UserError, match=line) as caught:
        load(Experiment, DIGITS, [*overrides, override])
    assert "\n" not in str(caught.value)
