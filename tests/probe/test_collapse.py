"""The measure of collapse, and the choice that the sweep makes by it."""

from __future__ import annotations

import sys

import pytest
import torch

from lwd.errors import UserError
from lwd.experiment import Experiment
from lwd.probe import distance_from_collapse, sweep
from lwd.schedules import PolynomialCurve, Schedule


def schedule(rho: list[float]) -> Schedule:
    learned = Schedule.learnable(["a", "b"], "b", degree=len(rho) - 1)
    curve = learned["a"]
    assert isinstance(curve, PolynomialCurve)
    with torch.no_grad():
        curve.rho.copy_(torch.tensor(rho))
    return learned


def test_the_extremes() -> None:
    assert distance_from_collapse(schedule([-50, -50, -50, -50, 5])) == pytest.approx(0, abs=1e-9)
    assert distance_from_collapse(schedule([5, -50, -50, -50, -50])) == pytest.approx(1, abs=1e-9)
    assert distance_from_collapse(Schedule.synchronous(["a", "b"])) is None


@pytest.mark.parametrize("rho", [[0.0, 1.0, -1.0, 0.5, 2.0], [1.0, 0.0], [-2.0, 3.0, 0.0]])
def test_it_is_the_ratio_of_areas(rho: list[float]) -> None:
    """Against the trapezoid rule on 200 001 points (error 1e-10)."""
    one = schedule(rho)
    tau = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    extremal = tau ** len(rho)
    ratio = torch.trapezoid(one["a"](tau)[0] - extremal, tau) / torch.trapezoid(tau - extremal, tau)
    assert distance_from_collapse(one) == pytest.approx(ratio.item(), abs=1e-7)


def test_the_sweep_takes_the_weakest_stable_lambda(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes are replaced by curves whose collapse is known; only the choice is under test."""
    curves = {0.01: [-9.0, -9, -9, -9, 3], 0.04: [0.0, 0, 0, 0, 1], 0.1: [2.0, -3, -3, -3, -3]}

    def fake_run(config: Experiment, folder: object, preview: object) -> Schedule:
        weight = config.probe.kinetic_weight
        made = schedule(curves[weight])
        made.provenance["lambda"] = weight
        return made

    monkeypatch.setattr(sys.modules["lwd.probe.sweep"], "run", fake_run)
    settings = experiment.sweep.model_copy(update={"kinetic_weights": tuple(curves), "collapsed_below": 0.1})
    config = experiment.model_copy(update={"sweep": settings})
    rows, chosen = sweep(config)
    assert [row.collapsed for row in rows] == [True, False, False]
    assert chosen.provenance["lambda"] == 0.04
    assert Schedule.load(config.output / "schedule.json").hash() == chosen.hash()

    none = config.model_copy(update={"sweep": settings.model_copy(update={"kinetic_weights": (0.01,)})})
    with pytest.raises(UserError, match=r"every lambda up to 0\.01 collapsed"):
        sweep(none)
