"""The outcome of one probe of a search, and its line in the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch

from lwd.schedules import Schedule
from lwd.schedules.collapse import Collapse, Criterion, assess
from lwd.schedules.curve import Curve
from lwd.schedules.distance import POINTS, curve_distance

STILL_WITHIN, STILL_RHO = 0.01, 0.5
"""A curve has not left where it began if it is no farther from it, in the supremum over tau, and no parameter of it is
either: one that is driven to the identity, where it began, is not still, since its parameters move."""


@dataclass(frozen=True)
class Outcome:
    """One probe: what it learned, whether that has collapsed, and why it ended early (None: it did not).

    ``still``: its curves have not left where they began, so that it says nothing of its lambda, unless others moved.
    """

    kinetic_weight: float
    seed: int
    schedule: Schedule
    folder: str
    collapse: Collapse
    stopped: str | None
    still: bool = False

    @classmethod
    def of(cls, kinetic_weight: float, seed: int, schedule: Schedule, folder: str, criterion: Criterion) -> Outcome:
        """Make the outcome of the schedule that a probe returned; a probe that was ended as collapsed has collapsed."""
        stopped = schedule.provenance.get("stopped")
        collapse = assess(schedule, criterion)
        assert collapse is not None, "a probe has a learned group"
        if stopped == "collapsed":
            collapse = Collapse(collapse.distance, collapse.mass, collapsed=True)
        still = all(_still(schedule[name]) for name in schedule.learned)
        return cls(kinetic_weight, seed, schedule, folder, collapse, stopped, still)


@dataclass(frozen=True)
class SweepRow:
    """One probe of the search: how near it came to collapse, and t(.25), t(.5), t(.75) by learned group.

    ``mass``: of the mixture on a_M; ``steps``: really run; ``stopped``: why before the end; ``folder``: beside the
    table.
    """

    kinetic_weight: float
    seed: int
    distance_from_collapse: float
    mass: float
    collapsed: bool
    steps: int
    stopped: str | None
    folder: str
    curve: dict[str, list[float]]
    still: bool = False


def _still(curve: Curve) -> bool:
    start = curve.start()
    moved = (curve.parameter_vector() - start.parameter_vector()).abs().max()
    return float(moved) <= STILL_RHO and curve_distance(curve, start) <= STILL_WITHIN


def row(outcome: Outcome) -> SweepRow:
    """An outcome as a line of the table."""
    points, schedule = torch.tensor(POINTS), outcome.schedule
    curve = {name: schedule[name](points)[0].detach().tolist() for name in schedule.learned}
    found, steps = outcome.collapse, int(schedule.provenance["steps"])
    return SweepRow(
        outcome.kinetic_weight,
        outcome.seed,
        found.distance,
        found.mass,
        found.collapsed,
        steps,
        outcome.stopped,
        outcome.folder,
        curve,
        outcome.still,
    )


def stable(outcomes: Iterable[Outcome]) -> dict[float, bool]:
    """Map each lambda to whether it is stable, that is, no seed's probe has collapsed."""
    found: dict[float, bool] = {}
    for outcome in outcomes:
        found[outcome.kinetic_weight] = found.get(outcome.kinetic_weight, True) and not outcome.collapse.collapsed
    return found


def nothing_moved(outcomes: Iterable[Outcome]) -> bool:
    """Whether no probe left where it began, so that they say nothing of lambda."""
    return all(outcome.still for outcome in outcomes)


NOTHING_MOVED = (
    "no probe's curve has left where it began, so nothing is known of lambda: too few steps or too small a rho_lr "
    "({steps} steps at rho_lr {rho_lr:g}); raise them"
)


def disagreement(schedules: Sequence[Schedule]) -> float | None:
    """The largest distance between two schedules' curves of one group (supremum over tau); None for a single one."""
    pairs = combinations(schedules, 2)
    return max((curve_distance(a[name], b[name]) for a, b in pairs for name in a.learned), default=None)
