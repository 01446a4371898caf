"""The convergence table: each variant at each budget, with the spread over seeds, and what can be said from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import ClassVar

from pydantic import NonNegativeInt

from lwd.config import Seed
from lwd.data.evaluation import RESULT, read_evaluation
from lwd.plots import figures as plots
from lwd.plots.drawing import Drawing
from lwd.plots.figures import Line
from lwd.plots.text import count, listed, number
from lwd.records import Record, read_records
from lwd.run import RunConfig
from lwd.stages.report.variants import Variants

RESULTS = "results.json"
Measure = Callable[["Result"], float | None]


class Result(Record):
    """One line of results.json: one denoiser at one budget."""

    what: ClassVar[str] = "a table of results"
    remedy: ClassVar[str] = "run `lwd demo` again"

    variant: str
    seed: Seed
    steps: NonNegativeInt
    frechet: float
    accuracy: float | None
    nfe: float


@dataclass(frozen=True)
class Cell:
    """One variant at one budget over its seeds; ``best``: ahead of every other by more than the spread."""

    frechet: tuple[float, ...]
    accuracy: float | None
    nfe: float
    best: bool = False

    @property
    def mean(self) -> float:
        """Mean Fréchet distance."""
        return fmean(self.frechet)

    @property
    def spread(self) -> float | None:
        """Largest minus smallest of two seeds, standard deviation of more; None for one seed."""
        seeds = len(self.frechet)
        return stdev(self.frechet) if seeds > 2 else max(self.frechet) - min(self.frechet) if seeds == 2 else None

    @property
    def spread_text(self) -> str:
        """The spread as the table writes it."""
        seeds = len(self.frechet)
        if seeds == 1:
            return ""
        return f"± {number(stdev(self.frechet))}" if seeds > 2 else self.range_text

    @property
    def range_text(self) -> str:
        """Smallest to largest."""
        return f"{number(min(self.frechet))} to {number(max(self.frechet))}"

    def ahead_of(self, other: Cell) -> bool:
        """Whether the mean is lower by more than the larger of the two spreads."""
        spreads = [s for s in (self.spread, other.spread) if s is not None]
        return len(spreads) == 2 and other.mean - self.mean > max(spreads)

    def overlaps(self, other: Cell) -> bool:
        """Whether the ranges over seeds meet."""
        return min(self.frechet) <= max(other.frechet) and min(other.frechet) <= max(self.frechet)


@dataclass(frozen=True)
class ComparisonSection:
    """``rows``: variant -> a cell per budget, None where it was not measured; ``changes``: what sets each apart."""

    budgets: list[int]
    rows: dict[str, list[Cell | None]]
    seeds: int
    colours: dict[str, str]
    changes: dict[str, str]
    floor: float | None
    verdict: str
    figures: list[tuple[str, Drawing]]

    @property
    def spread_note(self) -> str:
        """How the table states uncertainty, and when it marks a winner."""
        if self.seeds == 1:
            return "One seed, so no spread is known and no schedule is marked as the best."
        spread = "the smaller and the larger of two seeds" if self.seeds == 2 else "± the standard deviation over seeds"
        return (
            f"Under each mean: {spread}. A best mean is marked only where it leads every other by more than the spread."
        )


def comparison_section(config: RunConfig, variants: Variants) -> ComparisonSection | None:
    """None where nothing was compared yet."""
    path = config.output / RESULTS
    results = read_results(path) if path.is_file() else []
    if not results:
        return None
    budgets = sorted({result.steps for result in results})
    names = variants.in_order(result.variant for result in results)
    rows = {name: [_cell(results, name, budget) for budget in budgets] for name in names}
    for i in range(len(budgets)):
        _mark_best(rows, i)
    floor = _floor(config.output / "samples")
    last = {name: cell for name, cells in rows.items() if (cell := cells[-1]) is not None}
    return ComparisonSection(
        budgets,
        rows,
        max(len(cell.frechet) for cells in rows.values() for cell in cells if cell is not None),
        {name: variants.colour(name) for name in names},
        {name: variants.changes[name] for name in names if name in variants.changes},
        floor,
        verdict(last, budgets[-1]),
        _figures(results, variants, floor),
    )


def read_results(path: Path) -> list[Result]:
    """results.json; raises UserError where it is not a table of results."""
    return read_records(path, Result)


def verdict(cells: dict[str, Cell], steps: int) -> str:
    """Who was ahead at ``steps``, by how much, and whether the seeds allow to say so."""
    order = sorted(cells, key=lambda name: cells[name].mean)
    first, others = order[0], order[1:]
    mean = number(cells[first].mean)
    if not others:
        return f"After {count(steps)} steps {first} reaches a Fréchet distance of {mean}; nothing was compared with it."
    behind = listed([f"{number(cells[name].mean)} for {name}" for name in others])
    said = f"After {count(steps)} steps the lowest mean Fréchet distance is that of {first}: {mean}, against {behind}."
    if any(cell.spread is None for cell in cells.values()):
        return f"{said} With one seed there is no telling how much of this is chance."
    meet = [name for name in others if cells[first].overlaps(cells[name])]
    apart = [name for name in others if name not in meet]
    parts = [f"overlap with those of {listed(meet)}"] if meet else []
    parts += [f"do not overlap with those of {listed(apart)}"] if apart else []
    return f"{said} Over seeds its distances ({cells[first].range_text}) {' and '.join(parts)}."


def _cell(results: Sequence[Result], variant: str, steps: int) -> Cell | None:
    found = [result for result in results if result.variant == variant and result.steps == steps]
    if not found:
        return None
    accuracies = [result.accuracy for result in found if result.accuracy is not None]
    return Cell(
        frechet=tuple(result.frechet for result in found),
        accuracy=fmean(accuracies) if accuracies else None,
        nfe=fmean(result.nfe for result in found),
    )


def _mark_best(rows: dict[str, list[Cell | None]], column: int) -> None:
    """Mark the variant, if any, that is ahead of every other at one budget."""
    cells = {name: cell for name, row in rows.items() if (cell := row[column]) is not None}
    for name, cell in cells.items():
        others = [other for other_name, other in cells.items() if other_name != name]
        if others and all(cell.ahead_of(other) for other in others):
            rows[name][column] = replace(cell, best=True)


def _floor(samples: Path) -> float | None:
    """The Fréchet distance of the training images, from any evaluation."""
    for path in sorted(samples.glob(f"*/{RESULT}")):
        if (floor := read_evaluation(path).metrics.get("frechet_real")) is not None:
            return floor
    return None


def _lines(results: Sequence[Result], variants: Variants, value: Measure) -> tuple[list[Line], list[Line]]:
    """Of each variant, the means over seeds and the seeds themselves, where ``value`` was measured."""
    means, seeds = [], []
    for name in variants.in_order(result.variant for result in results):
        known = [(r.steps, y) for r in results if r.variant == name and (y := value(r)) is not None]
        budgets = sorted({x for x, _ in known})
        if budgets:
            averages = [fmean(y for x, y in known if x == budget) for budget in budgets]
            means.append(Line(name, budgets, averages, variants.colour(name), width=2.2))
            seeds.append(Line(name, [x for x, _ in known], [y for _, y in known], variants.colour(name)))
    return means, seeds


def _figures(results: Sequence[Result], variants: Variants, floor: float | None) -> list[tuple[str, Drawing]]:
    """(caption, drawing)."""
    figures = [("Fréchet distance", plots.frechet(*_lines(results, variants, lambda r: r.frechet), floor))]
    accuracies = _lines(results, variants, lambda r: r.accuracy)
    if accuracies[0]:
        figures.append(("Accuracy on the labels asked for", plots.accuracy(*accuracies)))
    return figures
