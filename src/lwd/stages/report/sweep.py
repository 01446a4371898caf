"""The search for lambda (the paper's Figure 2): every probe's curve, and how far each stayed from collapse."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lwd.errors import UserError
from lwd.files import read_json
from lwd.plots import figures as plots
from lwd.plots.curves import TAU
from lwd.plots.figures import DASHED, SOLID, Line, Probe
from lwd.plots.text import count, counted, number, percent
from lwd.plots.theme import ramp_colour
from lwd.run import RunConfig
from lwd.schedules import Schedule


@dataclass(frozen=True)
class SweepRow:
    """A line of the table; ``curve``: by learned group, its local time at each of the section's points."""

    kinetic_weight: float
    seed: int
    distance: float
    mass: float
    steps: int
    stopped: str | None
    folder: str
    collapsed: bool
    chosen: bool
    colour: str
    curve: dict[str, list[str]]


@dataclass(frozen=True)
class SweepSection:
    """Table and figures; ``lines``: by learned group, the curves; ``disagreement``: between seeds at the chosen λ."""

    rows: list[SweepRow]
    points: list[float]
    collapsed_below: float
    mass_above: float
    chosen: float | None
    disagreement: float | None
    cost: dict[str, Any]
    lines: dict[str, list[Line]]

    @property
    def probes(self) -> list[Probe]:
        """The points of the figure of distances."""
        return [Probe(row.kinetic_weight, row.distance, row.colour, row.collapsed, row.chosen) for row in self.rows]

    @property
    def distances(self) -> Markup:
        """Distances from collapse over λ."""
        return plots.sweep_distance(self.probes, self.collapsed_below)

    @property
    def curves(self) -> list[tuple[str, Markup]]:
        """(group, drawing) for each learned group."""
        return [
            (name, plots.unit_square(each, plots.TAU_LABEL, f"local time of {name}"))
            for name, each in self.lines.items()
        ]

    @property
    def seeds(self) -> int:
        """How many there are of each λ."""
        return len({row.seed for row in self.rows})

    @property
    def summary(self) -> str:
        """What the sweep says about lambda."""
        values = {row.kinetic_weight: False for row in self.rows}
        for row in self.rows:
            values[row.kinetic_weight] |= row.collapsed
        seeds = f", {counted(self.seeds)} seeds each" if self.seeds > 1 else ""
        weights = f"{len(values)} values of λ from {min(values):g} to {max(values):g}{seeds},"
        collapsed = sum(values.values())
        if self.chosen is None:
            return f"Of {weights} every one collapsed; the sweep needs larger ones."
        if collapsed == 0:
            return f"Of {weights} none collapsed; the weakest, {self.chosen:g}, was taken, and a weaker one may do too."
        return f"Of {weights} {counted(collapsed)} collapsed; the weakest that did not, {self.chosen:g}, was taken."

    @property
    def costs(self) -> str:
        """What the sweep took."""
        took = f"The sweep took {count(self.cost['steps'])} of {count(self.cost['planned'])} steps"
        share = self.cost["share"]
        return took + (f", {percent(share)} of what the main run takes." if share is not None else ".")

    @property
    def groups(self) -> list[str]:
        """The learned groups."""
        return list(self.rows[0].curve)


def save_sweep_curves(config: RunConfig) -> Path:
    """Figure 2 of a finished sweep as OUTPUT/sweep/curves.png; raises UserError where there is none."""
    section = sweep_section(config)
    if section is None:
        raise UserError(f"{config.output}: holds no finished sweep to draw; run `lwd sweep` first")
    path = config.output / "sweep" / "curves.png"
    plots.save_sweep(path, section.lines, section.probes, section.collapsed_below)
    return path


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
    chosen, weights = table["chosen"], sorted({float(row["kinetic_weight"]) for row in table["rows"]})
    if not weights:
        raise ValueError("no rows")
    rows = [
        SweepRow(
            kinetic_weight=float(row["kinetic_weight"]),
            seed=int(row["seed"]),
            distance=float(row["distance_from_collapse"]),
            mass=float(row["mass"]),
            steps=int(row["steps"]),
            stopped=row["stopped"],
            folder=str(row["folder"]),
            collapsed=bool(row["collapsed"]),
            chosen=row["kinetic_weight"] == chosen,
            colour=ramp_colour(weights.index(row["kinetic_weight"]), len(weights)),
            curve={group: [number(t) for t in times] for group, times in row["curve"].items()},
        )
        for row in table["rows"]
    ]
    apart = next((one["disagreement"] for one in table["lambdas"] if one["kinetic_weight"] == chosen), None)
    below, above = float(table["collapsed_below"]), float(table["mass_above"])
    return SweepSection(rows, list(table["points"]), below, above, chosen, apart, table["cost"], _lines(rows, folder))


def _lines(rows: list[SweepRow], folder: Path) -> dict[str, list[Line]]:
    """By learned group, the curves from the schedules that lie beside the table; the first seed's have the labels."""
    lines: dict[str, list[Line]] = {}
    labelled = set()
    for row in rows:
        path = folder / row.folder / "schedule.json"
        if not path.is_file():
            continue
        label = f"λ = {row.kinetic_weight:g}" + (", chosen" if row.chosen else "")
        dash, width = DASHED if row.collapsed else SOLID, 3.2 if row.chosen else 1.6
        if label in labelled:
            label, width = "", width / 2
        labelled.add(label)
        schedule = Schedule.load(path)
        for group in schedule.learned:
            times = schedule[group](TAU)[0].detach().numpy()
            lines.setdefault(group, []).append(Line(label, TAU.numpy(), times, row.colour, dash, width))
    return lines
