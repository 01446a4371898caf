"""The search for lambda as pictures (the paper's Figure 2): every probe's curve, and how far each is from collapse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lwd.plots.curves import TAU
from lwd.plots.drawing import picture, save_png
from lwd.plots.figures import DASHED, SOLID, TAU_LABEL, Line, draw_unit_square
from lwd.plots.theme import ramp_colour, stand_in
from lwd.schedules import Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_TICKS, _LONGEST_TICK = 7, 4


@dataclass(frozen=True)
class Probed:
    """One probe of the search, of which several seeds may share a lambda; without ``schedule`` no curve is drawn."""

    kinetic_weight: float
    distance: float
    collapsed: bool
    chosen: bool
    schedule: Schedule | None


def save_sweep_curves(file: Path, probes: Sequence[Probed], collapsed_below: float) -> None:
    """Write Figure 2 as a PNG: a panel of curves for each learned group, and the distances from collapse."""
    panels = [
        partial(draw_unit_square, lines=lines, x_label=TAU_LABEL, y_label=f"local time of {group}")
        for group, lines in curve_lines(probes).items()
    ]
    save_png(file, [*panels, partial(_draw_distances, probes=probes, collapsed_below=collapsed_below)])


@picture("Distance from collapse over lambda")
def distances(axes: Axes, probes: Sequence[Probed], collapsed_below: float) -> None:
    """Draw the distance from collapse over lambda, on a logarithmic axis, and what counts as collapsed."""
    _draw_distances(axes, probes, collapsed_below)


def weight_colours(weights: Iterable[float]) -> dict[float, str]:
    """Name a colour for each lambda, from light to deep as lambda grows."""
    ordered = sorted(set(weights))
    return {weight: ramp_colour(i, len(ordered)) for i, weight in enumerate(ordered)}


@torch.no_grad()
def curve_lines(probes: Sequence[Probed]) -> dict[str, list[Line]]:
    """Lines of the probes' curves, by learned group; of several seeds of one lambda the first has the label."""
    colours = weight_colours(probe.kinetic_weight for probe in probes)
    lines: dict[str, list[Line]] = {}
    labelled = set()
    for probe in probes:
        if probe.schedule is None:
            continue
        label = f"λ = {probe.kinetic_weight:g}" + (", chosen" if probe.chosen else "")
        dash, width = DASHED if probe.collapsed else SOLID, 3.2 if probe.chosen else 1.6
        if label in labelled:
            label, width = "", width / 2
        labelled.add(label)
        for group in probe.schedule.learned:
            times = probe.schedule[group](TAU)[0].numpy()
            line = Line(label, TAU.numpy(), times, colours[probe.kinetic_weight], dash, width)
            lines.setdefault(group, []).append(line)
    return lines


def _draw_distances(axes: Axes, probes: Sequence[Probed], collapsed_below: float) -> None:
    colours = weight_colours(probe.kinetic_weight for probe in probes)
    weights = list(colours)
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
        colour = stand_in(colours[probe.kinetic_weight])
        face = stand_in("card") if probe.collapsed else colour
        size = 9 if probe.chosen else 6
        x, y = probe.kinetic_weight, probe.distance
        (point,) = axes.plot([x], [y], "o", color=colour, markerfacecolor=face, markersize=size, markeredgewidth=1.6)
        point.set(clip_on=False, zorder=3)
    chosen = [(probe.kinetic_weight, probe.distance) for probe in probes if probe.chosen]
    if chosen:
        at = max(chosen, key=lambda point: point[1])
        axes.annotate("chosen", at, (0, 9), textcoords="offset points", ha="center", va="bottom", fontsize=8.5)
    scale_weights(axes, weights)
    axes.margins(x=0.1)
    axes.set(ylim=(0, 1.02), ylabel="distance from the extremal curve")


def scale_weights(axes: Axes, weights: Sequence[float]) -> None:
    """Make the x-axis that of lambda, with these ``weights`` marked: logarithmic, linear below the smallest positive
    one where there is a zero.
    """
    positive = [weight for weight in weights if weight > 0]
    if len(positive) == len(weights):
        axes.set_xscale("log")
    elif positive:
        axes.set_xscale("symlog", linthresh=min(positive))
    labels = [f"{weight:g}" for weight in weights]
    crowded = len(labels) > _MOST_TICKS or max(map(len, labels)) > _LONGEST_TICK
    axes.set_xticks(weights, labels, rotation=90 if crowded else 0)
    axes.minorticks_off()
    axes.set_xlabel("λ")
