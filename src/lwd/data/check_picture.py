"""The output of `lwd data check`: a short table, and every channel's histogram as a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lwd.data.check import BINS, REACH, Channels, FolderCheck
from lwd.data.format import FLIP
from lwd.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 8
MOST_CHANNELS = 64
_INK, _MUTED, _RULE = "#1c2127", "#646b75", "#c9c6c0"
_COLOURS = ("#1a66a8", "#d47a22", "#3b8b5c", "#ab4390")
_NORMAL: dict[str, Any] = {"color": _MUTED, "linewidth": 0.8, "linestyle": ":"}
_ACROSS, _UP, _MARGIN = 0.93, 0.62, 0.05  # of a panel, which is 1 by 1 inch and a bit
_HEADING, _LEGEND, _FOOT = 0.45, 0.3, 0.25
_STYLE = {
    **{"font.family": "DejaVu Sans", "font.size": 8, "text.color": _INK, "axes.edgecolor": _RULE},
    "text.parse_math": False,  # names may have a $
}


def table(reports: list[FolderCheck]) -> str:
    """A line for each tensor of latents, and the number of problems of each folder."""
    lines = []
    for report in reports:
        wrong = len(report.problems)
        verdict = "no problems" if not wrong else f"{wrong} problem{'s' * (wrong > 1)}"
        lines.append(f"{report.path}: {report.images} images in {report.shards} shards, {verdict}")
        for key, c in report.channels.items():
            shape, kind = "x".join(map(str, c.shape)), str(c.dtype).removeprefix("torch.")
            lines.append(
                f"  {key:18s} {shape:>10s} {kind:8s} mean {float(c.mean.min()):8.3f} to {float(c.mean.max()):7.3f}"
                f"  std {float(c.std.min()):7.3f} to {float(c.std.max()):7.3f}  values {c.low:8.2f} to {c.high:7.2f}"
            )
    return "\n".join(lines)


def save_histograms(reports: list[FolderCheck], path: Path) -> None:
    """Write a PNG: one panel per channel of each group, one line per folder, a normal curve to compare with.

    Of a group with many channels, the first `MOST_CHANNELS` are drawn.
    """
    import matplotlib
    from matplotlib.figure import Figure

    keys = [key for key in dict.fromkeys(k for r in reports for k in r.channels) if not key.endswith(FLIP)]
    widths = [max(len(r.channels[key].mean) for r in reports if key in r.channels) for key in keys]
    rows = [-(-min(width, MOST_CHANNELS) // COLUMNS) for width in widths]
    height = sum(rows) + _HEADING * len(rows) + _LEGEND + _FOOT
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(11, height), facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1))  # one for all panels: fifty take matplotlib seconds
        axes.set(xlim=(-_MARGIN, COLUMNS), ylim=(0, height))
        axes.set_axis_off()
        top = height - _LEGEND
        for key, width, count in zip(keys, widths, rows, strict=True):
            shown = f", the first {MOST_CHANNELS}" if width > MOST_CHANNELS else ""
            heading = f"{key}: {width} channels{shown}"
            axes.text(0, top - 0.6 * _HEADING, heading, fontsize=11, fontweight="bold")
            folders = [(number, r.channels[key]) for number, r in enumerate(reports) if key in r.channels]
            for channel in range(min(width, MOST_CHANNELS)):
                row, column = divmod(channel, COLUMNS)
                _panel(axes, folders, channel, column, top - _HEADING - row - 1 + _FOOT)
            top -= _HEADING + count
        handles = [axes.plot([], [], label="normal", **_NORMAL)[0]]
        handles += [axes.plot([], [], label=r.path.name, **_line(number))[0] for number, r in enumerate(reports)]
        figure.legend(handles=handles, loc="upper right", ncols=len(handles), frameon=False, fontsize=9)
        what = "standard deviations from the mean of the first folder's first images; the last bins hold all beyond"
        axes.text(COLUMNS / 2, 0.06, what, ha="center", va="bottom", fontsize=9, color=_MUTED)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)


def _line(number: int) -> dict[str, Any]:
    return {"color": _COLOURS[number % len(_COLOURS)], "linewidth": 1.0}


def _panel(axes: Axes, folders: list[tuple[int, Channels]], channel: int, left: int, base: float) -> None:
    """One channel's histograms, on a base line at height ``base`` whose ends are ``left`` and `_ACROSS` further on.

    ``folders``: each with its number; those that do not have so many channels are left out.
    """
    folders = [(number, channels) for number, channels in folders if channel < len(channels.mean)]
    edges = torch.linspace(-REACH, REACH, BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    normal = torch.exp(-centres.square() / 2)
    each = {number: _heights(channels.counts.view(-1, BINS)[channel]) for number, channels in folders}
    scale = _UP / max(1.0, *(float(heights.max()) for heights in each.values()))

    def across(value: Tensor | float) -> Any:
        return left + _ACROSS * (value + REACH) / (2 * REACH)

    x = across(centres)
    axes.plot(x, base + scale * normal, **_NORMAL)
    for number, heights in each.items():
        y = base + scale * heights
        if number == folders[0][0]:
            colour = _line(number)["color"]
            axes.fill_between(x, base, y, step="mid", color=colour, alpha=0.3, linewidth=0)
        axes.step(x, y, where="mid", **_line(number))
    axes.plot([left, left + _ACROSS], [base, base], color=_RULE, linewidth=0.8)
    for value in (-4, 0, 4):
        axes.text(across(value), base - 0.03, f"{value}", ha="center", va="top", fontsize=7, color=_MUTED)
    first = folders[0][1]
    title = f"{channel}:  {float(first.mean[channel]):.2f} ± {float(first.std[channel]):.2f}"
    axes.text(left + _ACROSS / 2, base + _UP + 0.02, title, ha="center", va="bottom")


def _heights(counts: Tensor) -> Tensor:
    """Counts (BINS,) -> heights on the scale on which the normal curve's top is 1."""
    scale = BINS / (2 * REACH) * math.sqrt(2 * math.pi)
    return counts.double() * (scale / max(int(counts.sum()), 1))
