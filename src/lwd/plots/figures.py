"""The figures, one function each: numbers in, inline SVG out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from lwd.plots.drawing import picture, save_png
from lwd.plots.text import count
from lwd.plots.theme import stand_in

Numbers = Sequence[float] | NDArray[np.float64]

Dash = str | tuple[int, tuple[float, ...]]
"""A matplotlib line style."""

SOLID: Dash = "-"
DASHED: Dash = (0, (4, 2.2))
DOTTED: Dash = (0, (1.2, 2))
_MAX_POINTS = 400
_LOG_FROM = 4.0
_MOST_TICKS, _LONGEST_TICK = 7, 4


@dataclass(frozen=True)
class Line:
    """One line of a figure; ``colour`` is a name of `lwd.plots.theme`."""

    label: str
    x: Numbers
    y: Numbers
    colour: str
    dash: Dash = SOLID
    width: float = 1.7


@dataclass(frozen=True)
class Probe:
    """One point of the sweep, of which several seeds may share a lambda."""

    kinetic_weight: float
    distance: float
    colour: str
    collapsed: bool
    chosen: bool


TAU_LABEL = "global time τ"


@picture("Curves between 0 and 1 over a time between 0 and 1")
def unit_square(axes: Axes, lines: Sequence[Line], x_label: str, y_label: str) -> None:
    """Lines that run from (0, 0) to (1, 1): local times over global time, or over another local time."""
    _unit_square(axes, lines, x_label, y_label)


def draw_unit_square(axes: Axes, lines: Sequence[Line], x_label: str, y_label: str, title: str) -> None:
    """The same, with a title, for pictures that stand alone."""
    _unit_square(axes, lines, x_label, y_label)
    axes.set_title(title, loc="left", fontsize=9, color=stand_in("muted"))


@picture("How settled each group is over global time", width=3.9, height=3.2)
def settled(axes: Axes, lines: Sequence[Line]) -> None:
    """How much of its way each group's prediction has gone, over global time."""
    _unit_square(axes, lines, "global time τ", "share of the way", legend="lower right")
    axes.set_ylim(bottom=min(0.0, *(float(np.min(line.y)) for line in lines)))


@picture("Distance from collapse over lambda")
def sweep_distance(axes: Axes, probes: Sequence[Probe], collapsed_below: float) -> None:
    """Distance from the extremal curve over lambda, on a logarithmic axis, and what counts as collapsed."""
    _sweep_distance(axes, probes, collapsed_below)


def save_sweep(
    path: Path, curves: Mapping[str, Sequence[Line]], probes: Sequence[Probe], collapsed_below: float
) -> None:
    """Write Figure 2 as a PNG: a panel of curves for each learned group, and the distances."""
    panels = [
        partial(_unit_square, lines=each, x_label=TAU_LABEL, y_label=f"local time of {group}")
        for group, each in curves.items()
    ]
    save_png(path, [*panels, partial(_sweep_distance, probes=probes, collapsed_below=collapsed_below)])


@picture("Values over the steps of the probe", width=3.9, height=3.2)
def trace(axes: Axes, lines: Sequence[Line], burn_in: int, y_label: str, unit: bool = False) -> None:
    """Values over steps, with the steps marked that the result averages; ``unit``: values in [0, 1]."""
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
    """A line through each variant's means, a point for each seed, and what real images reach."""
    _over_budgets(axes, means, seeds)
    axes.set_ylabel("Fréchet distance")
    if floor is not None:
        axes.axhline(floor, color=stand_in("muted"), linewidth=1, linestyle=DOTTED, label="real training images")
    _distance_scale(axes, [y for line in seeds for y in line.y])
    axes.legend()


@picture("Accuracy over training steps")
def accuracy(axes: Axes, means: Sequence[Line], seeds: Sequence[Line]) -> None:
    """A line through each variant's means and a point for each seed, as percentages."""
    _over_budgets(axes, means, seeds)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}\u202f%"))
    axes.set_ylabel("accuracy")
    axes.legend()


def _sweep_distance(axes: Axes, probes: Sequence[Probe], collapsed_below: float) -> None:
    weights = sorted({probe.kinetic_weight for probe in probes})
    positive = [weight for weight in weights if weight > 0]
    if len(positive) == len(weights):
        axes.set_xscale("log")
    elif positive:
        axes.set_xscale("symlog", linthresh=min(positive))
    axes.axhline(collapsed_below, color=stand_in("muted"), linestyle=DASHED, linewidth=1)
    axes.annotate(
        f"collapsed below {collapsed_below:g}",
        (0.99, collapsed_below),
        xycoords=("axes fraction", "data"),
        xytext=(0, 4),
        textcoords="offset points",
        ha="right",
        color=stand_in("muted"),
        fontsize=8.5,
    )
    means = [np.mean([probe.distance for probe in probes if probe.kinetic_weight == weight]) for weight in weights]
    axes.plot(weights, means, color=stand_in("rule"), linewidth=1.2)
    for probe in probes:
        colour = stand_in(probe.colour)
        face = stand_in("card") if probe.collapsed else colour
        size = 9 if probe.chosen else 6
        x, y = probe.kinetic_weight, probe.distance
        (point,) = axes.plot([x], [y], "o", color=colour, markerfacecolor=face, markersize=size, markeredgewidth=1.6)
        point.set(clip_on=False, zorder=3)
    chosen = [(probe.kinetic_weight, probe.distance) for probe in probes if probe.chosen]
    if chosen:
        at = max(chosen, key=lambda point: point[1])
        axes.annotate("chosen", at, (0, 9), textcoords="offset points", ha="center", va="bottom", fontsize=8.5)
    labels = [f"{weight:g}" for weight in weights]
    crowded = len(labels) > _MOST_TICKS or max(map(len, labels)) > _LONGEST_TICK
    axes.set_xticks(weights, labels, rotation=90 if crowded else 0)
    axes.minorticks_off()
    axes.margins(x=0.1)
    axes.set(ylim=(0, 1.02), xlabel="λ", ylabel="distance from the extremal curve")


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
    axes.plot(
        x, y, color=stand_in(line.colour), linestyle=line.dash, linewidth=line.width, label=label, zorder=2 + line.width
    )


def _unit_square(axes: Axes, lines: Sequence[Line], x_label: str, y_label: str, legend: str = "upper left") -> None:
    for line in lines:
        _plot(axes, line)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=x_label, ylabel=y_label)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    axes.legend(loc=legend)
