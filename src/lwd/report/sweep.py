"""The search for lambda (the paper's Figure 2): every probe's curve, and how far each stayed from collapse."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lwd.errors import UserError
from lwd.files import read_json
from lwd.report import plots
from lwd.report.learned import TAU, polynomials
from lwd.report.plots import DASHED, SOLID, Line, Probe
from lwd.report.text import counted, number
from lwd.report.theme import ramp_colour
from lwd.runtime.run import RunConfig
from lwd.schedules import Schedule


@dataclass(frozen=True)
class SweepRow:
    """A line of the table; ``curve``: by learned group, its local time at each of the section's points."""

    kinetic_weight: float
    distance: float
    collapsed: bool
    chosen: bool
    colour: str
    curve: dict[str, list[str]]


@dataclass(frozen=True)
class SweepSection:
    """Figures and table; ``curves``: (group, drawing)."""

    rows: list[SweepRow]
    points: list[float]
    collapsed_below: float
    chosen: float | None
    curves: list[tuple[str, Markup]]
    distances: Markup

    @property
    def summary(self) -> str:
        """What the sweep says about lambda."""
        weights = (
            f"{len(self.rows)} values of λ from {self.rows[0].kinetic_weight:g} to {self.rows[-1].kinetic_weight:g}"
        )
        collapsed = sum(row.collapsed for row in self.rows)
        if self.chosen is None:
            return f"Of {weights} every one collapsed; the sweep needs larger ones."
        if collapsed == 0:
            return f"Of {weights} none collapsed; the weakest, {self.chosen:g}, was taken, and a weaker one may do too."
        return f"Of {weights}, {counted(collapsed)} collapsed; the weakest that did not, {self.chosen:g}, was taken."

    @property
    def groups(self) -> list[str]:
        """The learned groups."""
        return list(self.rows[0].curve)


def sweep_section(config: RunConfig) -> SweepSection | None:
    """None where no sweep is finished."""
    path = config.output / "sweep" / "table.json"
    if not path.is_file():
        return None
    try:
        return _section(read_json(path), path.parent)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path}: not the table of a sweep ({error!r}); run `lwd sweep` again") from error


def _section(table: dict[str, Any], folder: Path) -> SweepSection:
    chosen, count = table["chosen"], len(table["rows"])
    if not count:
        raise ValueError("no rows")
    rows = [
        SweepRow(
            kinetic_weight=float(row["kinetic_weight"]),
            distance=float(row["distance_from_collapse"]),
            collapsed=bool(row["collapsed"]),
            chosen=row["kinetic_weight"] == chosen,
            colour=ramp_colour(i, count),
            curve={group: [number(t) for t in times] for group, times in row["curve"].items()},
        )
        for i, row in enumerate(table["rows"])
    ]
    below = float(table["collapsed_below"])
    probes = [Probe(row.kinetic_weight, row.distance, row.colour, row.collapsed, row.chosen) for row in rows]
    distances = plots.sweep_distance(probes, below)
    return SweepSection(rows, list(table["points"]), below, chosen, _curves(rows, folder), distances)


def _curves(rows: list[SweepRow], folder: Path) -> list[tuple[str, Markup]]:
    """One figure per learned group, from the schedules that lie beside the table."""
    lines: dict[str, list[Line]] = {}
    for row in rows:
        path = folder / f"lambda-{row.kinetic_weight:g}" / "schedule.json"
        if not path.is_file():
            continue
        label = f"λ = {row.kinetic_weight:g}" + (", chosen" if row.chosen else "")
        dash, width = DASHED if row.collapsed else SOLID, 3.2 if row.chosen else 1.6
        for group, curve in polynomials(Schedule.load(path)).items():
            times = curve(TAU)[0].detach().numpy()
            lines.setdefault(group, []).append(Line(label, TAU.numpy(), times, row.colour, dash, width))
    return [(g, plots.unit_square(each, "global time τ", f"local time of {g}")) for g, each in lines.items()]
