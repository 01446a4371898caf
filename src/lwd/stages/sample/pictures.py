"""The path of a few samples, to look at (the paper's Figure 1, left): each group's state along global time."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from lwd.data.stats import Statistics
from lwd.encoders.decoder import Decoder
from lwd.groups import Layout
from lwd.images.colours import LatentColours
from lwd.plots.strip import save_strip
from lwd.sample.path import TRAJECTORY, Trajectory

PICTURE = "trajectory.png"
SHOWN = 4


def write_trajectory(
    folder: Path, path: Trajectory, labels: Tensor, decoder: Decoder | None, layout: Layout, statistics: Statistics
) -> None:
    """``trajectory.safetensors`` (standardised latents) and its picture, of the first `SHOWN` samples.

    Groups without decoder are shown in the principal directions of the samples' ends.
    """
    path.save(folder / TRAJECTORY, labels)
    colours = {name: LatentColours.fit(part) for name, part in layout.split(path.states[-1].float()).items()}
    rows = [
        row
        for i in range(min(SHOWN, path.states.shape[1]))
        for row in _rows(path, i, decoder, layout, statistics, colours)
    ]
    titles = []
    for tau, times in zip(path.taus.tolist(), path.times.tolist(), strict=True):
        local = [f"{name} {t:.2f}" for name, t in zip(layout.names, times, strict=True)]
        titles.append("\n".join([f"τ = {tau:.2f}", *local]))
    save_strip(folder / PICTURE, rows, titles)


def _rows(
    path: Trajectory,
    sample: int,
    decoder: Decoder | None,
    layout: Layout,
    statistics: Statistics,
    colours: dict[str, LatentColours],
) -> list[tuple[str, Tensor]]:
    """Of one sample, a label and images (K, c, H, W) per group: its state; of the decoded one also what is expected."""
    rows = []
    states, predictions = path.states[:, sample].float(), path.predictions[:, sample].float()
    for name, part in layout.split(states).items():
        if decoder is not None and name == decoder.group:
            decoded = [decoder.decode(statistics.destandardise(x), layout).cpu() for x in (states, predictions)]
            rows += [(name, decoded[0]), (f"{name},\nexpected", decoded[1])]
        else:
            rows.insert(0, (name, colours[name](part)))
    return rows
