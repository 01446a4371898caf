"""Early stopping on hand-made sequences of rho."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lwd.probe.stopping import EarlyStop, Stopped, Watcher
from lwd.schedules import PolynomialCurve, Schedule
from lwd.schedules.distance import curve_distance

RULE, STEPS, BURN_IN = EarlyStop(window=10, settled_within=0.005), 100, 50
STABLE, COLLAPSED = torch.tensor([0.5, -5.0, -5, -5, 0.0]), torch.tensor([-9.0, -9, -9, -9, 3])


def log(*parts: tuple[Tensor, int]) -> dict[str, Tensor]:
    """rho held at each value for so many steps."""
    return {"a": torch.cat([rho.double().expand(count, -1) for rho, count in parts])}


def first(
    rho: dict[str, Tensor], rule: EarlyStop = RULE, burn_in: int = BURN_IN, killed_at: tuple[int, ...] = ()
) -> Stopped | None:
    """What a probe with this rho after each step is stopped for; ``killed_at``: it goes on from checkpoints there."""
    schedule = Schedule.learnable([*rho, "leader"], "leader")
    watcher = Watcher(rule, schedule, burn_in)
    for step in range(1, min(map(len, rho.values())) + 1):
        watcher.add(step, {name: values[step - 1].float() for name, values in rho.items()})
        averages = {name: values[burn_in:step].mean(0).float() for name, values in rho.items()}
        if step < STEPS and (found := watcher.look(step, averages)) is not None:
            return found
        if step in killed_at:
            again = Watcher(rule, schedule, burn_in)
            again.load(watcher.state())
            watcher = again
            if step < STEPS and (found := watcher.look(step, averages)) is not None:
                return found
    return None


def reason(rho: dict[str, Tensor], rule: EarlyStop = RULE, burn_in: int = BURN_IN) -> tuple[str, int] | None:
    found = first(rho, rule, burn_in)
    return None if found is None else (found.reason, found.steps)


@pytest.mark.parametrize(
    ("rho", "expected"),
    [
        (log((STABLE, 15), (COLLAPSED, 85)), ("collapsed", 30)),  # held from 15 on, for all of 20 to 30
        (log((STABLE, 10), (COLLAPSED, 90)), ("collapsed", 20)),
        (log((STABLE, 11), (COLLAPSED, 89)), ("collapsed", 30)),
        (log((COLLAPSED, 9), (STABLE, 91)), ("settled", 70)),  # back again before it had held for a window
        (log((STABLE, 25), (COLLAPSED, 4), (STABLE, 71)), ("settled", 70)),
        (log((STABLE, 100)), ("settled", 70)),  # two windows after burn-in, not before
        (log((STABLE, 69)), None),  # not looked at yet
        (log((STABLE, 70)), ("settled", 70)),
        (log((COLLAPSED, 9)), None),
        (log((STABLE, 95), (COLLAPSED, 5)), ("settled", 70)),  # what comes later changes nothing
    ],
)
def test_when_it_stops(rho: dict[str, Tensor], expected: tuple[str, int] | None) -> None:
    assert reason(rho) == expected


def test_a_curve_that_moves_is_not_settled() -> None:
    """The averaged curve moves by more than 0.005 in every window until the end."""
    drift = STABLE.double() + torch.linspace(0, 3, 100, dtype=torch.float64)[:, None] * torch.tensor([0, 0, 0, 0, 1.0])
    assert reason({"a": drift}) is None
    slow = STABLE.double() + (drift - STABLE.double()) / 30
    assert reason({"a": slow}) == ("settled", 70)
    assert reason({"a": slow, "b": drift}) is None, "every group must have settled"
    assert reason({"a": slow, "b": log((STABLE, 10), (COLLAPSED, 90))["a"]}) == ("collapsed", 20), "one suffices"


def test_the_tolerance_is_on_the_averaged_curve() -> None:
    """rho jumps by an oscillation of zero mean: rho moves all the time, its average does not."""
    sway = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(50)[:, None] * torch.tensor([0, 0, 0, 0, 1.0])
    assert reason({"a": STABLE.double() + sway}) == ("settled", 70)


def test_what_a_stopped_probe_learned() -> None:
    settled = first(log((COLLAPSED, 5), (STABLE, 45), (STABLE + 1e-3, 50)))
    assert settled is not None and settled.burn_in == 50
    torch.testing.assert_close(settled.vectors["a"], STABLE + 1e-3)
    collapsed = first(log((STABLE, 20), (COLLAPSED, 80)))
    assert collapsed is not None and collapsed.provenance == {"stopped": "collapsed", "steps": 30, "burn_in": 20}
    torch.testing.assert_close(collapsed.vectors["a"], COLLAPSED)


def test_settled_takes_two_whole_windows_after_burn_in() -> None:
    assert reason(log((STABLE, 100)), burn_in=45) == ("settled", 70)


def test_at_its_end_a_probe_is_not_early() -> None:
    assert reason(log((STABLE, 90), (COLLAPSED, 10)), burn_in=89) is None
    assert reason(log((STABLE, 80), (COLLAPSED, 20)), burn_in=89) == ("collapsed", 90)


def test_the_distance_of_curves() -> None:
    """sup |tau - tau^2| = 1/4 at 1/2, and sup |tau - tau^5| = (4/5) 5^(-1/4) at 5^(-1/4), by a grid of 1 001."""
    curve = {
        m: PolynomialCurve.from_rho(torch.tensor([50.0 if i == m else -50.0 for i in range(5)])) for m in (0, 1, 4)
    }
    assert curve_distance(curve[0], curve[1]) == pytest.approx(0.25, abs=1e-6)
    assert curve_distance(curve[0], curve[4]) == pytest.approx(0.8 * 5**-0.25, abs=1e-6)
    assert curve_distance(curve[4], curve[4]) == 0


@pytest.mark.parametrize("killed_at", [(10,), (34,), (50, 60), tuple(range(1, 100))])
def test_killed_it_stops_at_the_same_step_for_the_same_reason(killed_at: tuple[int, ...]) -> None:
    """Also where the kill came right at a look, which is then taken once more."""
    for rho in (log((STABLE, 100)), log((STABLE, 15), (COLLAPSED, 85)), log((COLLAPSED, 9), (STABLE, 91))):
        whole, halves = first(rho), first(rho, killed_at=killed_at)
        assert whole is not None and halves is not None and whole.provenance == halves.provenance
        assert torch.equal(whole.vectors["a"], halves.vectors["a"])


def test_a_probe_that_went_on_without_a_rule_needs_a_window_of_its_own() -> None:
    watcher = Watcher(RULE, Schedule.learnable(["a", "leader"], "leader"), BURN_IN)
    for step in range(16, 20):
        watcher.add(step, {"a": COLLAPSED})
    assert watcher.look(20, {"a": COLLAPSED}) is None
    for step in range(20, 31):
        watcher.add(step, {"a": COLLAPSED})
    found = watcher.look(30, {"a": COLLAPSED})
    assert found is not None and found.reason == "collapsed"
