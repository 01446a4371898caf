"""The sweep's table: for people, and as OUTPUT/sweep/table.json."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import torch

from lwd.probe.loop import CURVE_POINTS
from lwd.probe.stopping import curve_distance
from lwd.schedules import PolynomialCurve, Schedule
from lwd.schedules.collapse import Collapse, Criterion, assess


@dataclass(frozen=True)
class Outcome:
    """One probe: what it learned, whether that has collapsed, and why it ended early (None: it did not)."""

    kinetic_weight: float
    seed: int
    schedule: Schedule
    folder: str
    collapse: Collapse
    stopped: str | None

    @classmethod
    def of(cls, kinetic_weight: float, seed: int, schedule: Schedule, folder: str, criterion: Criterion) -> Outcome:
        """From what the probe returned; one that was ended for it has collapsed."""
        stopped = schedule.provenance.get("stopped")
        collapse = assess(schedule, criterion)
        assert collapse is not None, "the sweep asks for two groups, one of which leads"
        if stopped == "collapsed":
            collapse = Collapse(collapse.distance, collapse.mass, collapsed=True)
        return cls(kinetic_weight, seed, schedule, folder, collapse, stopped)


@dataclass(frozen=True)
class SweepRow:
    """One probe of the sweep: how near it came to collapse, and t(.25), t(.5), t(.75) by learned group.

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


@dataclass(frozen=True)
class Cost:
    """What the sweep took: ``steps`` of the ``planned`` ones, each of ``step_flops`` operations (forward, backward)."""

    steps: int
    planned: int
    step_flops: int
    main_flops: int | None = None

    @property
    def flops(self) -> int:
        """Of all steps."""
        return self.steps * self.step_flops

    @property
    def share(self) -> float | None:
        """Of the main run's operations, where they are known."""
        return self.flops / self.main_flops if self.main_flops else None

    def __str__(self) -> str:
        percent = None if self.share is None else 100 * self.share
        share = "" if percent is None else f", {percent:{',.0f' if percent >= 10 else '.2g'}} % of the main run"
        return f"{self.steps:,} of {self.planned:,} steps, {self.flops:.2g} operations{share}"


def row(outcome: Outcome) -> SweepRow:
    """An outcome as a line of the table."""
    points = torch.tensor(CURVE_POINTS)
    curve = {name: one(points)[0].detach().tolist() for name, one in _learned(outcome.schedule).items()}
    found, steps = outcome.collapse, int(outcome.schedule.provenance["steps"])
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
    )


def disagreement(schedules: Sequence[Schedule]) -> float | None:
    """The largest distance between two schedules' curves of one group (supremum over tau); None for a single one."""
    pairs = combinations([_learned(schedule) for schedule in schedules], 2)
    return max((curve_distance(one[name], other[name]) for one, other in pairs for name in one), default=None)


def as_json(outcomes: Iterable[Outcome], criterion: Criterion, chosen: float | None, cost: Cost) -> dict[str, Any]:
    """The content of table.json."""
    ordered = sorted(outcomes, key=lambda one: (one.kinetic_weight, one.seed))
    weights = dict.fromkeys(one.kinetic_weight for one in ordered)
    each = {weight: [one for one in ordered if one.kinetic_weight == weight] for weight in weights}
    return {
        "rows": [asdict(row(one)) for one in ordered],
        "lambdas": [
            {
                "kinetic_weight": weight,
                "stable": not any(one.collapse.collapsed for one in same),
                "disagreement": disagreement([one.schedule for one in same]),
            }
            for weight, same in each.items()
        ],
        "collapsed_below": criterion.distance,
        "mass_above": criterion.mass,
        "points": list(CURVE_POINTS),
        "chosen": chosen,
        "cost": {**asdict(cost), "flops": cost.flops, "share": cost.share},
    }


def on_screen(table: dict[str, Any]) -> str:
    """The content of table.json, for people."""
    lines = ["lambda   seed  distance  mass on a_M     steps"]
    for line in table["rows"]:
        chosen = line["kinetic_weight"] == table["chosen"]
        verdict = "collapsed" if line["collapsed"] else "chosen" if chosen else "stable"
        ended = {None: "", "collapsed": ", ended early", "settled": ", settled early"}[line["stopped"]]
        weight, distance, mass = line["kinetic_weight"], line["distance_from_collapse"], line["mass"]
        numbers = f"{weight:<8g} {line['seed']:<4d} {distance:9.3f} {mass:12.3f} {line['steps']:9,d}"
        lines.append(f"{numbers}  {verdict}{ended}")
    for one in table["lambdas"]:
        if one["disagreement"] is not None:
            lines.append(f"lambda {one['kinetic_weight']:g}: seeds differ by {one['disagreement']:.3f} at most")
    cost = {key: table["cost"][key] for key in ("steps", "planned", "step_flops", "main_flops")}
    lines.append(f"cost: {Cost(**cost)}")
    return "\n".join(lines)


def _learned(schedule: Schedule) -> dict[str, PolynomialCurve]:
    curves = {name: schedule[name] for name in schedule.names}
    return {name: curve for name, curve in curves.items() if isinstance(curve, PolynomialCurve)}
