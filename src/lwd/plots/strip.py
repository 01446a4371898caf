"""Images in rows over global time: the path of a sample (the paper's Figure 1, left)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from lwd.files import atomic_path
from lwd.images.sheets import to_uint8

_CELL_INCHES, _GAP = 0.95, 0.1  # with its gap, which is a share of the cell
_POINTS = 7.5
_LINE_INCHES, _LETTER_INCHES = 1.35 * _POINTS / 72, 0.66 * _POINTS / 72


def save_strip(file: Path, rows: Sequence[tuple[str, Tensor]], titles: Sequence[str]) -> None:
    """Write a PNG of rows, each a label and images (K, c, H, W) in [-1, 1], c 1 or 3, under a title per column (K,)."""
    import matplotlib
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    left = _GAP + _longest(label for label, _ in rows) * _LETTER_INCHES / _CELL_INCHES
    top = _GAP + max(1 + title.count("\n") for title in titles) * _LINE_INCHES / _CELL_INCHES
    width, height, middle = left + len(titles), top + len(rows), (1 - _GAP) / 2
    with matplotlib.rc_context({"font.size": _POINTS, "text.parse_math": False}):
        figure = Figure(figsize=(_CELL_INCHES * width, _CELL_INCHES * height))
        axes = figure.add_axes((0, 0, 1, 1))  # one for all cells: a hundred take matplotlib seconds
        frames = []
        for y, (label, images) in enumerate(rows):
            axes.text(-_GAP / 2, y + middle, label, ha="right", va="center")
            pixels = to_uint8(images).expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
            down, across = (2 * middle * n / max(pixels.shape[1:3]) for n in pixels.shape[1:3])
            for x, image in enumerate(pixels):
                axes.imshow(image.numpy(), interpolation="nearest", extent=(x, x + across, y + down, y))
                frames.append([(x, y), (x, y + down), (x + across, y + down), (x + across, y)])
        for x, title in enumerate(titles):
            axes.text(x + middle, -_GAP / 2, title, ha="center", va="bottom")
        axes.add_collection(PolyCollection(frames, facecolors="none", edgecolors="black", linewidths=0.8))
        axes.set(xlim=(-left, len(titles)), ylim=(len(rows), -top))
        axes.set_axis_off()
        with atomic_path(file) as temporary:
            figure.savefig(temporary, format="png", dpi=150)


def _longest(texts: Iterable[str]) -> int:
    """Letters of the longest line."""
    return max(len(line) for text in texts for line in text.split("\n"))
