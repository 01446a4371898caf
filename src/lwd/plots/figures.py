"""The figures, one function each: numbers in, a `Drawing` out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lwd.plots.drawing import picture
from lwd.plots.text import count
from lwd.plots.theme import stand_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = Sequence[float] | NDArray[np.float64]

Dash = str | tuple[int, tuple[float, ...]]
"""A matplotlib line style."""

SOLID: Dash = "-"
DASHED: Dash = (0, (4, 2.2))
DOTTED: Dash = (0, (1.2, 2))
_MAX_POINTS = 400
_LOG_FROM = 4.0


@dataclass(frozen=True)
class Line:
    """One line of a figure; ``colour`` is a name of `lwd.plots.theme`."""

    label: str
    x: Numbers
    y: Numbers
    colour: str
    dash: Dash = SOLID
    width: float = 1.7


TAU_LABEL = "global time τ"


@picture("Curves between 0 and 1 over a time between 0 and 1")
def unit_square(axes: Axes, lines: Sequence[Line], x_label: str, y_label: str) -> None:
    """Draw lines from (0, 0) to (1, 1): local times over global time, or over another local time."""
    draw_unit_square(axes, lines, x_label, y_label)


def draw_unit_square(
    axes: Axes, lines: Sequence[Line], x_label: str, y_label: str, title: str = "", legend: str = "upper left"
) -> None:
    """Draw what `unit_square` does, with a title for pictures that stand alone."""
    for line in lines:
        _plot(axes, line)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=x_label, ylabel=y_label)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    axes.legend(loc=legend)
    if title:
        axes.set_title(title, loc="left", fontsize=9, color=stand_in("muted"))


@picture("How settled each group is over global time", width=3.9, height=3.2)
def settled(axes: Axes, lines: Sequence[Line]) -> None:
    """Draw how much of its way each group's prediction has gone, over global time."""
    draw_unit_square(axes, lines, TAU_LABEL, "share of the way", legend="lower right")
    axes.set_ylim(bottom=min(0.0, *(float(np.min(line.y)) for line in lines)))


@picture("Values over the steps of the probe", width=3.9, height=3.2)
def trace(axes: Axes, lines: Sequence[Line], burn_in: int, y_label: str, unit: bool = False) -> None:
    """Draw values over steps, with the steps marked that the result averages; ``unit``: values in [0, 1]."""
    last = max(float(line.x[-1]) for line in lines)
    if 0 < burn_in < last:
        axes.axvspan(burn_in, last, color=stand_in("grid"), alpha=0.55, linewidth=0)
        axes.axvline(burn_in, color=stand_in("muted"), linewidth=1, linestyle=DASHED)
    for line in lines:
        _plot(axes, line)
    axes.set(xlabel="step", ylabel=y_label, xlim=(0, last))
    if unit:
        axes.set_ylim(0, 1)
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1), ncols=min(5, len(lines)), columnspacing=1.1, handlelength=1.2
    )


@picture("Fréchet distance over training steps")
def frechet(axes: Axes, means: Sequence[Line], seeds: Sequence[Line], floor: float | None) -> None:
    """Draw Fréchet distances: a line through each variant's means, a point for each seed, the level of real images."""
    _over_budgets(axes, means, seeds)
    axes.set_ylabel("Fréchet distance")
    if floor is not None:
        axes.axhline(floor, color=stand_in("muted"), linewidth=1, linestyle=DOTTED, label="real training images")
    _distance_scale(axes, [y for line in seeds for y in line.y])
    axes.legend()


@picture("Accuracy over training steps")
def accuracy(axes: Axes, means: Sequence[Line], seeds: Sequence[Line]) -> None:
    """Draw accuracies as percentages: a line through each variant's means, a point for each seed."""
    from matplotlib.ticker import FuncFormatter

    _over_budgets(axes, means, seeds)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}\u202f%"))
    axes.set_ylabel("accuracy")
    axes.legend()


def _over_budgets(axes: Axes, means: Sequence[Line], seeds: Sequence[Line]) -> None:
    for points in seeds:
        axes.plot(points.x, points.y, "o", color=stand_in(points.colour), markersize=4.5, alpha=0.6, markeredgewidth=0)
    for line in means:
        _plot(axes, line)
    budgets = sorted({float(x) for line in means for x in line.x})
    axes.set_xticks(budgets, [count(round(budget)) for budget in budgets])
    room = (budgets[-1] - budgets[0]) * 0.06 or 1
    axes.set(xlim=(budgets[0] - room, budgets[-1] + room), xlabel="training steps")


def _distance_scale(axes: Axes, distances: Sequence[float]) -> None:
    """From zero where the distances are alike, logarithmic where they span more than a factor of four."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if min(distances) <= 0 or max(distances) / min(distances) < _LOG_FROM:
        axes.set_ylim(bottom=0)
        return
    axes.set_yscale("log")
    axes.set_ylabel("Fréchet distance, log scale")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _plot(axes: Axes, line: Line) -> None:
    stride = -(-len(line.x) // _MAX_POINTS)
    keep = sorted({*range(0, len(line.x), stride), len(line.x) - 1})
    x, y = np.asarray(line.x)[keep], np.asarray(line.y)[keep]
    label = line.label or "_unlabelled"
    if line.label.startswith("_"):  # which legends leave out
        label = f"\N{ZERO WIDTH SPACE}{label}"
    axes.plot(
        x, y, color=stand_in(line.colour), linestyle=line.dash, linewidth=line.width, label=label, zorder=2 + line.width
    )
