"""The schedule that was learned, beside the fixed ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from lwd.plots import figures as plots
from lwd.plots.curves import TAU
from lwd.plots.drawing import Drawing
from lwd.plots.figures import DASHED, DOTTED, SOLID, Dash, Line
from lwd.plots.text import listed, number
from lwd.run import RunConfig
from lwd.schedules import IdentityCurve, Schedule
from lwd.schedules.collapse import extremal
from lwd.stages.report.variants import Variants

READ_AT = (0.25, 0.5, 0.75)
"""Leader times at which the page says where the followers are."""
_DASHES: tuple[Dash, ...] = (SOLID, (0, (6, 1.5)), (0, (6, 1.5, 1.2, 1.5)))


@dataclass(frozen=True)
class LearnedSection:
    """The schedule's figures, formulas and provenance."""

    leader: str
    followers: list[str]
    curves: Drawing
    phase: Drawing
    formulas: list[tuple[str, str]]
    read_at: tuple[float, ...]
    reached: list[tuple[str, list[str]]]
    provenance: list[tuple[str, str]]
    summary: str


def read_schedule(config: RunConfig) -> tuple[Schedule, Path] | None:
    """The chosen schedule of a sweep, else that of a single probe, and its file."""
    for path in (config.output / "schedule.json", config.output / "probe" / "schedule.json"):
        if path.is_file():
            schedule = Schedule.load(path).requires_grad_(False)
            schedule.check(config.layout, str(path))
            return schedule, path
    return None


@dataclass(frozen=True)
class Drawn:
    """One curve of the figures: ``group``'s in ``schedule``."""

    label: str
    schedule: Schedule
    group: str
    colour: str
    dash: Dash
    width: float = 1.6

    @torch.no_grad()
    def lines(self, leader: str) -> tuple[Line, Line]:
        """The group's local time over global time, and over the leader's local time."""
        times = self.schedule(TAU)[0]
        follows, leads = (times[:, self.schedule.names.index(name)].numpy() for name in (self.group, leader))
        over_tau, over_leader = (
            Line(self.label, x, follows, self.colour, self.dash, self.width) for x in (TAU.numpy(), leads)
        )
        return over_tau, over_leader

    @torch.no_grad()
    def reached(self, leader: str) -> list[str]:
        """The group's local time where the leader has reached each of READ_AT."""
        tau = self.schedule[leader].inverse(torch.tensor(READ_AT, dtype=torch.float64))
        return [number(float(t)) for t in self.schedule[self.group](tau)[0]]


def learned_section(config: RunConfig, variants: Variants) -> LearnedSection | None:
    """None where no schedule was learned yet."""
    found = read_schedule(config)
    if not found or not found[0].learned:
        return None
    schedule, leader = found[0], config.leader
    learned = schedule.learned
    colour = variants.colour_of_kind("learned")
    ours = [
        Drawn(f"learned, {name}", schedule, name, colour, _DASHES[i % len(_DASHES)], 2.6)
        for i, name in enumerate(learned)
    ]
    fixed = _fixed(schedule, leader, variants)
    over_tau, over_leader = zip(*(one.lines(leader) for one in [*ours, *fixed]), strict=True)
    followers = f"local time of {listed(learned)}"
    return LearnedSection(
        leader,
        list(learned),
        plots.unit_square(over_tau, plots.TAU_LABEL, followers),
        plots.unit_square(over_leader, f"local time of {leader}", followers),
        [(name, schedule[name].formula()) for name in learned],
        READ_AT,
        [(one.label, one.reached(leader)) for one in [*ours, *fixed]],
        _provenance(schedule),
        _summary(ours, fixed, leader),
    )


def _fixed(schedule: Schedule, leader: str, variants: Variants) -> list[Drawn]:
    """What the learned curves are held against; with several learned groups, those of the first, which are the same."""
    group = schedule.learned[0]
    last = extremal(schedule[group])
    collapsed = Schedule({name: IdentityCurve() for name in schedule.names} | {group: last})
    return [
        Drawn(
            "synchronous",
            Schedule.synchronous(schedule.names),
            group,
            variants.colour_of_kind("synchronous"),
            DASHED,
        ),
        Drawn(
            f"offset {variants.delta:g}",
            Schedule.offset(schedule.names, leader, variants.delta),
            group,
            variants.colour_of_kind("offset"),
            SOLID,
        ),
        Drawn(f"extremal, {last.formula()}", collapsed, group, "muted", DOTTED),
    ]


def _summary(ours: list[Drawn], fixed: list[Drawn], leader: str) -> str:
    """Where the followers are when the leader is half clean, learned and otherwise."""
    half = READ_AT.index(0.5)
    at = [f"{one.group} at t = {one.reached(leader)[half]}" for one in ours]
    others = [f"{one.label}: {one.reached(leader)[half]}" for one in fixed]
    return f"Where {leader} is half clean, t = 0.5, the learned schedule has {listed(at)} ({'; '.join(others)})."


def _provenance(schedule: Schedule) -> list[tuple[str, str]]:
    """The plain values that travel with the schedule, and the hash that names it."""
    plain = {key: value for key, value in schedule.provenance.items() if isinstance(value, str | int | float)}
    shown = {
        key: number(float(value)) if key == "distance_from_collapse" else str(value) for key, value in plain.items()
    }
    names = {"lambda": "λ", "data": "data fingerprint", "seed": "probe seed", "lwd": "learned with lwd"}
    return [("schedule", schedule.hash()), *((names.get(k, k.replace("_", " ")), v) for k, v in shown.items())]
