"""The study's four figures, as PNG files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes

import tables
from design import LEARNED, Key, schedule_file
from lwd.plots.drawing import save_png
from lwd.plots.theme import stand_in, variant_colour
from lwd.schedules import Schedule
from stats import Tested
from tables import Results

Panel = Callable[[Axes], None]

FAR = 2
"""Times the least distance: a path beyond it would press all others into one point."""

CAPTIONS = {
    "paths": "Fréchet distance by path at the largest budget: means over seeds (dashes) and each seed (points); "
    "what is over twice the least is a number at the edge.",
    "hypotheses": "Differences of Fréchet distances with 95 % intervals. Filled: what was expected was found; open: it "
    "was not, or nothing was decided. A square is the primary hypothesis.",
    "schedules": "The learned curves: each follower's local time over the leader's.",
    "rules": "What the joint network says of a path, and what networks trained for that path reach; beyond twice the "
    "least, both numbers stand beside the path's name.",
}


def panels_of(results: Results) -> dict[str, list[Panel]]:
    """The panels of each of `CAPTIONS`; a figure of nothing is left out."""
    drawn: dict[str, list[Panel]] = {
        "paths": [partial(_paths, results=results, data=name) for name in results.data if _trained(results, name)],
        "hypotheses": [partial(_hypotheses, results=results)] * bool(_found(results)),
        "schedules": [
            partial(_schedules, results=results, data=name)
            for name in results.learned
            if any(schedule_file(results.study, name, path).is_file() for path in LEARNED)
        ],
        "rules": [
            partial(_rule, results=results, data=name, score=score)
            for name in results.learned
            for score in ("loss", "nats", "distance")
            if (found := tables.ranked(results, name)) is not None and score in found.scores
        ],
    }
    return {name: panels for name, panels in drawn.items() if panels}


def save_figures(results: Results, stem: Path) -> None:
    """Write STEM-NAME.png for each of `panels_of`."""
    for name, panels in panels_of(results).items():
        file, width = stem.with_name(f"{stem.name}-{name}.png"), 4.5 if len(panels) < 3 else 3.4
        save_png(file, panels, width, height=3.4, columns=3)


def _trained(results: Results, data: str) -> list[Key]:
    """What was measured with the exact solver, unguided, with Lemma 3.3's weights."""
    return [key for key in tables.ways(results) if key[0] == data and key[5:] == ("exact", False) and key[3]]


def _paths(axes: Axes, results: Results, data: str) -> None:
    keys = _trained(results, data)
    last = {key[1:3]: max(k[4] for k in keys if k[1:3] == key[1:3]) for key in keys}
    keys = [key for key in keys if key[4] == last[key[1:3]]]
    paths = list(dict.fromkeys(key[1] for key in keys))
    densities = list(dict.fromkeys(key[2] for key in keys))
    measured = {key: list(results.values(key).values()) for key in keys}
    limit = FAR * min(map(np.mean, measured.values()))
    for number, density in enumerate(densities):
        colour = stand_in(variant_colour(number))
        for key in (key for key in keys if key[2] == density):
            place = paths.index(key[1]) + 0.25 * (number - (len(densities) - 1) / 2)
            values = measured[key]
            if (mean := np.mean(values)) > limit:
                edge = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "center"}
                axes.annotate(f"{mean:.0f} \N{RIGHTWARDS ARROW}", (1, place), fontsize=7, color=colour, **edge)
                continue
            axes.plot(values, [place] * len(values), ".", color=colour, markersize=4, alpha=0.6)
            axes.plot([mean], [place], "|", color=colour, markersize=12, markeredgewidth=2)
        axes.plot([], [], ".", color=colour, label=density.replace("_", "-"))
    axes.set_yticks(range(len(paths)), paths, fontsize=7)
    axes.set(xlabel="Fréchet distance", ylim=(len(paths) - 0.6, -0.4))
    axes.set_title(data, loc="left", fontsize=9, color=stand_in("muted"))
    if len(densities) > 1:
        axes.legend(fontsize=7)


def _found(results: Results) -> list[Tested]:
    return [one for one in results.tested if one.found is not None and one.metric == "frechet"]


def _hypotheses(axes: Axes, results: Results) -> None:
    found = _found(results)
    for number, one in enumerate(found):
        assert one.found is not None
        colour = stand_in(variant_colour(0 if one.primary else 1))
        agrees = one.sign == one.expected
        axes.plot([one.found.low, one.found.high], [number] * 2, "-", color=colour)
        marker = "s" if one.primary else "o"
        axes.plot(one.found.mean, number, marker, color=colour, markerfacecolor=colour if agrees else "none")
    axes.axvline(0, color=stand_in("muted"), linewidth=1, linestyle=":")
    axes.set_yticks(range(len(found)), [one.name for one in found], fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel="difference of Fréchet distances")


def _schedules(axes: Axes, results: Results, data: str) -> None:
    tau = torch.linspace(0, 1, 201)
    axes.plot([0, 1], [0, 1], color=stand_in("muted"), linewidth=1, linestyle=":")
    for number, path in enumerate(LEARNED):
        file = schedule_file(results.study, data, path)
        if not file.is_file():
            continue
        schedule = Schedule.load(file)
        leader = schedule[results.study.leader](tau)[0]
        followers = [name for name in schedule.names if name != results.study.leader]
        for line, name in zip(("-", "--", "-."), followers, strict=False):
            label = path if line == "-" else None
            colour = stand_in(variant_colour(number))
            axes.plot(leader.tolist(), schedule[name](tau)[0].tolist(), line, color=colour, label=label)
    axes.set(xlabel="leader's local time", ylabel="followers' local time", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(data, loc="left", fontsize=9, color=stand_in("muted"))
    axes.legend(fontsize=7)


def _rule(axes: Axes, results: Results, data: str, score: str) -> None:
    found = tables.ranked(results, data)
    assert found is not None
    limit = FAR * found.truth.mean(1).min()
    known = list(dict.fromkeys(key[1] for key in tables.ways(results)))  # one colour in every panel
    for number, path in enumerate(found.paths):
        x, mine = found.scores[score][number], found.truth[number]
        error = float(mine.std(ddof=1)) / len(mine) ** 0.5
        colour = stand_in(variant_colour(known.index(path)))
        size = 7 if path == "synchronous" else 4  # seen also under a path that is all but the same
        if mine.mean() > limit:
            axes.errorbar(
                [], [], yerr=[], fmt="o", color=colour, markersize=4, label=f"{path}: {x:.0f}, {mine.mean():.0f}"
            )
            continue
        axes.errorbar([x], [mine.mean()], yerr=[error], fmt="o", color=colour, markersize=size, label=path)
    axes.set(xlabel=tables.SCORES[score], ylabel="retrained: Fréchet distance")
    axes.locator_params(axis="x", nbins=5)  # or numbers of five digits touch
    axes.set_title(data, loc="left", fontsize=9, color=stand_in("muted"))
    axes.legend(fontsize=6)
