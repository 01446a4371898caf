"""The sweep's table: for people, and as OUTPUT/sweep/table.json."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from lwd.probe.outcome import Outcome, disagreement, row
from lwd.schedules import Schedule
from lwd.schedules.collapse import Criterion
from lwd.schedules.distance import POINTS


@dataclass(frozen=True)
class Cost:
    """What the sweep took: ``steps`` of the ``planned`` ones, each of ``step_flops`` operations (forward, backward).

    0 where they cannot be counted.
    """

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
        if not self.planned:
            return "no probe's; the map's joint network was a training run of its own"
        percent = None if self.share is None else 100 * self.share
        share = "" if percent is None else f", {percent:{',.0f' if percent >= 10 else '.2g'}} % of the main run"
        return f"{self.steps:,} of {self.planned:,} steps, {self.flops:.2g} operations{share}"


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
        "points": list(POINTS),
        "chosen": chosen,
        "cost": {**asdict(cost), "flops": cost.flops, "share": cost.share},
    }


def on_screen(table: dict[str, Any]) -> str:
    """The content of table.json, for people."""
    lines = ["lambda   seed  distance  mass on a_M     steps"]
    for line in table["rows"]:
        chosen = line["kinetic_weight"] == table["chosen"]
        verdict = "collapsed" if line["collapsed"] else "chosen" if chosen else "stable"
        verdict += ", where it began" if line.get("still") else ""
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


def learned_table(schedule: Schedule) -> str:
    """What one probe learned, for people: the local times at three global ones, by group."""
    width = max(len("group"), *map(len, schedule.names))
    lines = [f"{'group':<{width}}" + "".join(f"  t({point:g})".rjust(9) for point in POINTS)]
    for name in schedule.names:
        times = schedule[name](torch.tensor(POINTS))[0].detach().tolist()
        lines.append(f"{name:<{width}}" + "".join(f"{time:9.3f}" for time in times))
    weight, distance = schedule.provenance["lambda"], schedule.provenance["distance_from_collapse"]
    return "\n".join([*lines, f"lambda {weight:g}, distance from collapse {distance:.3f}"])
