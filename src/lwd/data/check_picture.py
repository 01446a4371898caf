"""The output of `lwd data check`: a short table, and every channel's histogram as a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

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
_STYLE = {"font.family": "DejaVu Sans", "font.size": 8, "text.color": _INK, "axes.edgecolor": _RULE}


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
    with matplotlib.rc_context(_STYLE):
        height = sum(rows) + 0.55 * len(rows) + 0.5
        figure = Figure(figsize=(11, height), facecolor="white", layout="constrained")
        parts = figure.subfigures(len(keys), 1, squeeze=False, height_ratios=[n + 0.55 for n in rows])[:, 0]
        for part, key, width, count in zip(parts, keys, widths, rows, strict=True):
            shown = f", the first {MOST_CHANNELS}" if width > MOST_CHANNELS else ""
            part.suptitle(f"{key}: {width} channels{shown}", x=0.012, ha="left", fontsize=11, fontweight="bold")
            panels = part.subplots(count, COLUMNS, squeeze=False, sharex=True).flatten()
            for channel, axes in enumerate(panels):
                if channel < min(width, MOST_CHANNELS):
                    _panel(axes, [(r.path.name, r.channels[key]) for r in reports if key in r.channels], channel)
                else:
                    axes.set_axis_off()
        handles, labels = parts[0].axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False, fontsize=9)
        figure.supxlabel(
            "standard deviations from the mean of the first folder's first images; the last bins hold all beyond",
            fontsize=9, color=_MUTED,
        )  # fmt: skip
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)


def _panel(axes: Axes, folders: list[tuple[str, Channels]], channel: int) -> None:
    edges = torch.linspace(-REACH, REACH, BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    axes.plot(centres, torch.exp(-centres.square() / 2), color=_MUTED, linewidth=0.8, linestyle=":", label="normal")
    for number, (name, channels) in enumerate(folders):
        heights = _heights(channels.counts.view(-1, BINS)[channel])
        colour = _COLOURS[number % len(_COLOURS)]
        if number == 0:
            axes.fill_between(centres, heights, step="mid", color=colour, alpha=0.3, linewidth=0)
        axes.step(centres, heights, where="mid", color=colour, linewidth=1.0, label=name)
    first = folders[0][1]
    axes.set_title(
        f"{channel}:  {float(first.mean[channel]):.2f} ± {float(first.std[channel]):.2f}",
        fontsize=8, pad=2, color=_INK,
    )  # fmt: skip
    axes.set(xlim=(-REACH, REACH), ylim=(0, None), yticks=[])
    axes.set_xticks([-4, 0, 4])
    axes.tick_params(length=2, color=_RULE, labelcolor=_MUTED, labelsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _heights(counts: Tensor) -> Tensor:
    """Counts (BINS,) -> heights on the scale on which the normal curve's top is 1."""
    scale = BINS / (2 * REACH) * math.sqrt(2 * math.pi)
    return counts.double() * (scale / max(int(counts.sum()), 1))
