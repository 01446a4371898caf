"""Images in rows over global time: the path of a sample (the paper's Figure 1, left)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from lwd.files import atomic_path
from lwd.images.sheets import to_uint8

_CELL_INCHES = 0.95


def save_strip(file: Path, rows: Sequence[tuple[str, Tensor]], titles: Sequence[str]) -> None:
    """Write a PNG of rows, each a label and images (K, c, H, W) in [-1, 1], c 1 or 3, under a title per column (K,)."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 7.5}):
        size = (_CELL_INCHES * (len(titles) + 0.8), _CELL_INCHES * (len(rows) + 0.5))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(rows), len(titles), squeeze=False)
        for (label, images), line in zip(rows, axes, strict=True):
            pixels = to_uint8(images).expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
            for image, axis in zip(pixels, line, strict=True):
                axis.imshow(image.numpy(), interpolation="nearest")
                axis.set(xticks=[], yticks=[])
            line[0].set_ylabel(label, rotation=0, ha="right", va="center")
        for title, axis in zip(titles, axes[0], strict=True):
            axis.set_title(title, fontsize=7.5)
        with atomic_path(file) as temporary:
            figure.savefig(temporary, format="png", dpi=150)
