"""The search for lambda (the paper's Figure 2): every probe's curve, and how far each stayed from collapse."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lwd.plots import sweep as plots
from lwd.plots.drawing import Drawing
from lwd.plots.figures import TAU_LABEL, unit_square
from lwd.plots.sweep import Probed
from lwd.plots.text import count, counted, percent
from lwd.probe.table import TABLE, CostRecord, Row, SweepTable, read_table
from lwd.run import RunConfig
from lwd.schedules import Schedule


@dataclass(frozen=True)
class SweepSection:
    """Table and figures; ``probes``: the rows as they are drawn; ``disagreement``: between seeds at the chosen λ."""

    rows: list[Row]
    probes: list[Probed]
    points: list[float]
    collapsed_below: float
    mass_above: float
    chosen: float | None
    disagreement: float | None
    cost: CostRecord

    @property
    def colours(self) -> dict[float, str]:
        """The name of each λ's colour."""
        return plots.weight_colours(row.kinetic_weight for row in self.rows)

    @property
    def distances(self) -> Drawing:
        """Distances from collapse over λ."""
        return plots.distances(self.probes, self.collapsed_below)

    @property
    def curves(self) -> list[tuple[str, Drawing]]:
        """(group, drawing) for each learned group."""
        drawn = plots.curve_lines(self.probes).items()
        return [(name, unit_square(lines, TAU_LABEL, f"local time of {name}")) for name, lines in drawn]

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
        if not self.cost.planned:
            return "It was looked for on the map of a joint network, whose training was a run of its own."
        took = f"The sweep took {count(self.cost.steps)} of {count(self.cost.planned)} steps"
        share = self.cost.share
        return took + (f", {percent(share)} of what the main run takes." if share is not None else ".")

    @property
    def groups(self) -> list[str]:
        """The learned groups."""
        return list(self.rows[0].curve)


def sweep_section(config: RunConfig) -> SweepSection | None:
    """None where no sweep is finished."""
    path = config.output / "sweep" / TABLE
    if not path.is_file():
        return None
    return _section(read_table(path), path.parent)


def _section(table: SweepTable, folder: Path) -> SweepSection:
    chosen = table.chosen
    apart = next((one.disagreement for one in table.lambdas if one.kinetic_weight == chosen), None)
    return SweepSection(
        list(table.rows),
        [_probed(row, chosen, folder / row.folder / "schedule.json") for row in table.rows],
        list(table.points),
        table.collapsed_below,
        table.mass_above,
        chosen,
        apart,
        table.cost,
    )


def _probed(row: Row, chosen: float | None, file: Path) -> Probed:
    """With the schedule that lies beside the table, if it is still there."""
    schedule = Schedule.load(file) if file.is_file() else None
    is_chosen = row.kinetic_weight == chosen
    return Probed(row.kinetic_weight, row.distance_from_collapse, row.collapsed, is_chosen, schedule)
