"""Maps over pairs of local times as pictures, with schedules drawn over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from lwd.plots.drawing import save_png
from lwd.plots.theme import stand_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Heat:
    """Values (K, K) over ``grid`` (K,), by the leader's and the follower's log-SNR; ``signed``: around zero.

    ``paths``: schedules' lines (M, 2) in log-SNR, by name.
    """

    title: str
    leader: str
    follower: str
    grid: Tensor
    values: Tensor
    paths: Mapping[str, Tensor]
    signed: bool = False


def save_maps(file: Path, rows: Sequence[Heat]) -> None:
    """Write a PNG of maps side by side."""
    save_png(file, [partial(_draw, heat=heat) for heat in rows], width=4.2, height=3.7)


def _draw(axes: Axes, heat: Heat) -> None:
    grid, numbers = heat.grid.numpy(), heat.values.numpy()
    ink = stand_in("ink") if heat.signed else "white"
    if heat.signed:
        most = float(np.abs(numbers).max()) or 1.0
        image = axes.pcolormesh(grid, grid, numbers.T, shading="nearest", vmin=-most, vmax=most, cmap="RdBu_r")
    else:
        image = axes.pcolormesh(grid, grid, numbers.T, shading="nearest", cmap="viridis")
    axes.figure.colorbar(image, ax=axes, shrink=0.85)
    for (name, path), dash in zip(heat.paths.items(), _DASHES, strict=False):
        line = path.numpy()
        axes.plot(line[:, 0], line[:, 1], dash, color=ink, label=name, linewidth=1.4)
    axes.set_xlim(grid[0], grid[-1])
    axes.set_ylim(grid[0], grid[-1])
    axes.set_xlabel(f"log-SNR of {heat.leader}")
    axes.set_ylabel(f"log-SNR of {heat.follower}")
    axes.set_title(heat.title, fontsize=9.5)
    axes.grid(visible=False)
    for text in axes.legend(loc="upper left", fontsize=7).get_texts():
        text.set_color(ink)
