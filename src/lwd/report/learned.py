"""The schedule that was learned, beside the fixed ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup

from lwd.report import plots
from lwd.report.plots import DASHED, DOTTED, Line
from lwd.report.text import number, tau_to_the
from lwd.report.variants import Variants
from lwd.runtime.run import RunConfig
from lwd.schedules import IdentityCurve, PolynomialCurve, Schedule

TAU = torch.linspace(0, 1, 201, dtype=torch.float64)
READ_AT = (0.25, 0.5, 0.75)
"""Leader times at which the page says where the followers are."""
_DASHES = (plots.SOLID, (0, (6, 1.5)), (0, (6, 1.5, 1.2, 1.5)))


@dataclass(frozen=True)
class LearnedSection:
    """The schedule's figures, formulas and provenance."""

    leader: str
    followers: list[str]
    curves: Markup
    phase: Markup
    formulas: list[tuple[str, str]]
    read_at: tuple[float, ...]
    reached: list[tuple[str, list[str]]]
    delta: float
    provenance: dict[str, Any]


def read_schedule(config: RunConfig) -> tuple[Schedule, Path] | None:
    """The chosen schedule of a sweep, else that of a single probe, and its file."""
    for path in (config.output / "schedule.json", config.output / "probe" / "schedule.json"):
        if path.is_file():
            schedule = Schedule.load(path)
            schedule.check(config.layout, str(path))
            return schedule, path
    return None


def polynomials(schedule: Schedule) -> dict[str, PolynomialCurve]:
    """The learned curves by group."""
    curves = {name: schedule[name] for name in schedule.names}
    return {name: curve for name, curve in curves.items() if isinstance(curve, PolynomialCurve)}


def extremal(curve: PolynomialCurve) -> PolynomialCurve:
    """tau^(M+1), where a collapsing probe ends: all weight on the last coefficient."""
    return PolynomialCurve.from_rho(torch.tensor([-1e3] * curve.degree + [1e3]))


def learned_section(config: RunConfig, variants: Variants) -> LearnedSection | None:
    """None where no schedule was learned yet."""
    found = read_schedule(config)
    learned = polynomials(found[0]) if found else {}
    if not found or not learned:
        return None
    schedule = found[0]
    degree = max(curve.degree for curve in learned.values())
    most = next(curve for curve in learned.values() if curve.degree == degree)
    follower = next(iter(learned))
    offset = Schedule.offset(schedule.names, config.leader, variants.delta)
    ends = tau_to_the(degree + 1)
    # (label, schedule, group, colour, dash), drawn in this order
    drawn: list[tuple[str, Schedule, str, str, Any]] = [
        (f"extremal, {ends}", _with(config, schedule, follower, extremal(most)), follower, "muted", DOTTED),
        ("synchronous", Schedule.synchronous(schedule.names), follower, variants.colour_of_kind("synchronous"), DASHED),
        (f"offset {variants.delta:g}", offset, follower, variants.colour_of_kind("offset"), plots.SOLID),
        *(
            (f"learned, {name}", schedule, name, variants.colour_of_kind("learned"), _DASHES[i % len(_DASHES)])
            for i, name in enumerate(learned)
        ),
    ]
    over_tau, over_leader = [], []
    for label, one, group, colour, dash in drawn:
        times = one(TAU)[0]
        follows, leads = times[:, one.names.index(group)].detach(), times[:, one.names.index(config.leader)].detach()
        width = 2.6 if one is schedule else 1.6
        over_tau.append(Line(label, TAU.numpy(), follows.numpy(), colour, dash, width))
        over_leader.append(Line(label, leads.numpy(), follows.numpy(), colour, dash, width))
    return LearnedSection(
        config.leader,
        list(learned),
        plots.unit_square(over_tau, "global time τ", f"local time of {' and '.join(learned)}"),
        plots.unit_square(over_leader, f"local time of {config.leader}", f"local time of {' and '.join(learned)}"),
        [(name, _formula(curve)) for name, curve in learned.items()],
        READ_AT,
        [(label, _reached(one, group, config.leader)) for label, one, group, _, _ in reversed(drawn)],
        variants.delta,
        schedule.provenance,
    )


def _with(config: RunConfig, schedule: Schedule, group: str, curve: PolynomialCurve) -> Schedule:
    """The leader at t = tau, ``curve`` for ``group`` and the others as they are."""
    curves = {name: schedule[name] for name in schedule.names}
    return Schedule(curves | {config.leader: IdentityCurve(), group: curve})


def _formula(curve: PolynomialCurve) -> str:
    return " + ".join(f"{float(p):.3f}\u202f{tau_to_the(m + 1)}" for m, p in enumerate(curve.mixture().detach()))


@torch.no_grad()
def _reached(schedule: Schedule, group: str, leader: str) -> list[str]:
    """The group's local time where the leader has reached each of READ_AT."""
    tau = schedule[leader].inverse(torch.tensor(READ_AT, dtype=torch.float64))
    return [number(float(t)) for t in schedule[group](tau)[0]]
