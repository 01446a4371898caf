"""The study's figures, as PNG files: convergence, what the sweeps found, and where the learned schedule gains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

from design import StudyConfig
from lwd.plots.drawing import save_png
from lwd.plots.theme import stand_in, variant_colour
from stats import Row, by_seed, curve, points_of, ratios
from tables import Gain, gains

Panel = Callable[[Axes], None]


def save_figures(
    study: StudyConfig,
    rows: Sequence[Row],
    probes: Sequence[Row],
    semantics: Sequence[Row],
    predictions: Sequence[Row],
    stem: Path,
) -> list[tuple[Path, str]]:
    """Write STEM-*.png; returns the files and their captions, those that there is something to show of."""
    figures: list[tuple[str, str, list[Panel]]] = []
    if some := by_cell(rows, study.study.main):
        text = "Fréchet distance over training steps: means over seeds, a point for each seed."
        figures.append(("convergence", text, [partial(_convergence, study=study, rows=some, cell=study.study.main)]))
    found = gains(study, rows, semantics)
    several = len({gain.cell for gain in found}) > 1
    if several:
        text = (
            "Fréchet distance under the learned schedule over that under the synchronous one, by training steps, in "
            "every cell: means over seeds, a point for each seed. Below 1 the learned schedule is ahead."
        )
        figures.append(("cells", text, [partial(_ratios, study=study, rows=rows)]))
    if probes:
        names = [name for name in study.study.cells if by_cell(probes, name)]
        shown = partial(_chosen, study=study, probes=probes, cells=names)
        swept = partial(_swept, study=study, probes=probes, cells=names)
        text = (
            "Left: the probes' distance from collapse over lambda (0: extremal, 1: synchronous); crosses: collapsed. "
            "Right: the curve at the lambda chosen in each cell; dashed: with the exact Jacobian."
        )
        figures.append(("schedules", text, [swept, shown]))
    if several:
        text = (
            "What the learned schedule gains over the synchronous one, by what the semantics explain of the texture "
            "(beyond the class, where classes are given): below 1 the learned schedule is ahead. Circles: means at "
            "the first budget, filled: at the last; points: seeds."
        )
        figures.append(("boundary", text, [partial(_boundary, found=found)]))
    if predictions:
        text = (
            "The probes' distance from collapse against the closed form's, on the Gaussian that has the latents' means "
            "and covariance. From the marker (ideal denoiser; circles: stop-gradient, squares: exact Jacobian) a line "
            "goes to the prediction for the shrunk one."
        )
        figures.append(("prediction", text, [partial(_predicted, predictions=predictions, probes=probes)]))
    files = []
    for name, text, drawn in figures:
        path = stem.with_name(f"{stem.name}-{name}.png")
        save_png(path, drawn, width=4.5 if len(drawn) < 3 else 2.9, height=3.6 if len(drawn) < 3 else 3.0)
        files.append((path, text))
    return files


def by_cell(rows: Sequence[Row], cell: str) -> list[Row]:
    """The rows of one cell."""
    return [row for row in rows if row["cell"] == cell]


def _convergence(axes: Axes, study: StudyConfig, rows: Sequence[Row], cell: str) -> None:
    budgets = study.study.cells[cell].budgets
    for index, variant in enumerate(study.compare.variants):
        points = curve(rows, budgets, variant=variant)
        if not points:
            continue
        colour = stand_in(variant_colour(index))
        axes.plot(*zip(*points, strict=True), color=colour, label=variant)
        for steps in budgets:
            values = list(by_seed(rows, variant=variant, steps=steps).values())
            axes.plot([steps] * len(values), values, ".", color=colour, markersize=4)
    axes.set(xscale="log", yscale="log", xlabel="training steps", ylabel="Fréchet distance")
    axes.set_xticks(budgets, [f"{steps:,}" for steps in budgets])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.minorticks_off()
    axes.set_title(cell, loc="left", fontsize=9, color=stand_in("muted"))
    axes.legend(fontsize=7)


def _ratios(axes: Axes, study: StudyConfig, rows: Sequence[Row]) -> None:
    shown: set[int] = set()
    for index, (name, cell) in enumerate(study.study.cells.items()):
        colour, points = stand_in(variant_colour(index)), []
        for steps in cell.budgets:
            if found := ratios(rows, name, steps):
                axes.plot([steps] * len(found), found, ".", color=colour, markersize=4)
                points.append((steps, float(np.mean(found))))
        if points:
            axes.plot(*zip(*points, strict=True), "-o", color=colour, markersize=4, label=name)
            shown |= {steps for steps, _ in points}
    axes.axhline(1, color=stand_in("muted"), linewidth=1, linestyle=":")
    axes.set(xscale="log", xlabel="training steps", ylabel="distance, learned / synchronous")
    axes.set_xticks(sorted(shown), [f"{steps:,}" for steps in sorted(shown)])
    axes.minorticks_off()
    axes.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)


def _swept(axes: Axes, study: StudyConfig, probes: Sequence[Row], cells: Sequence[str]) -> None:
    for index, cell in enumerate(cells):
        rows = sorted((r for r in by_cell(probes, cell) if r["probe"].startswith("sweep/")), key=lambda r: r["lambda"])
        colour = stand_in(variant_colour(index))
        axes.plot([r["lambda"] for r in rows], [r["distance_from_collapse"] for r in rows], color=colour, label=cell)
        for row in rows:
            axes.plot(row["lambda"], row["distance_from_collapse"], "x" if row["collapsed"] else "o", color=colour)
    axes.axhline(study.sweep.collapsed_below, color=stand_in("muted"), linewidth=1, linestyle=":")
    axes.set(xscale="log", xlabel="lambda", ylabel="distance from collapse", ylim=(-0.03, 1.03))
    tried = sorted({r["lambda"] for cell in cells for r in by_cell(probes, cell) if r["probe"].startswith("sweep/")})
    axes.set_xticks(tried, [f"{weight:.2g}" for weight in tried])
    axes.minorticks_off()
    axes.legend(fontsize=7)


def _chosen(axes: Axes, study: StudyConfig, probes: Sequence[Row], cells: Sequence[str]) -> None:
    for index, cell in enumerate(cells):
        for row in by_cell(probes, cell):
            line = "-" if row["chosen"] else "--" if row["probe"] == "exact" else None
            if line is not None:
                colour = stand_in(variant_colour(index))
                for points in points_of(row).values():
                    axes.plot(*points, line, color=colour, label=cell if row["chosen"] else None)
    axes.plot([0, 1], [0, 1], color=stand_in("muted"), linewidth=1, linestyle=":")
    axes.set(xlabel="global time", ylabel="local time", xlim=(0, 1), ylim=(0, 1))
    axes.legend(fontsize=6)


def _predicted(axes: Axes, predictions: Sequence[Row], probes: Sequence[Row]) -> None:
    found = {(row["cell"], row["probe"]): row["distance_from_collapse"] for row in probes}
    for index, row in enumerate(predictions):
        colour = stand_in(variant_colour(index))
        for one in row["probes"]:
            measured = found[row["cell"], one["probe"]]
            axes.plot([one["shrunk"], one["ideal"]], [measured] * 2, "-", color=colour, linewidth=1)
            marker = "s" if one["jacobian"] == "exact" else "o"
            axes.plot(one["ideal"], measured, marker, color=colour, markersize=4)
        axes.plot([], [], "o", color=colour, label=row["cell"])
    axes.plot([0, 1], [0, 1], color=stand_in("muted"), linewidth=1, linestyle=":")
    axes.set(xlabel="distance from collapse, predicted", ylabel="distance from collapse, found")
    axes.legend(fontsize=7)


def _boundary(axes: Axes, found: Sequence[Gain]) -> None:
    cells = list(dict.fromkeys(gain.cell for gain in found))
    for gain in found:
        colour = stand_in(variant_colour(cells.index(gain.cell)))
        last = gain.steps == max(other.steps for other in found if other.cell == gain.cell)
        axes.plot([gain.r2] * len(gain.ratios), gain.ratios, ".", color=colour, markersize=4)
        fill, label = (colour, gain.cell) if last else ("none", None)
        axes.plot(gain.r2, float(np.mean(gain.ratios)), "o", color=colour, markerfacecolor=fill, label=label)
    axes.axhline(1, color=stand_in("muted"), linewidth=1, linestyle=":")
    axes.set(xlabel="texture explained by semantics (R²)", ylabel="distance, learned / synchronous")
    axes.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
