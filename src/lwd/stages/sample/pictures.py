"""The path of a few samples, to look at (the paper's Figure 1, left): each group's state along global time."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from safetensors.torch import save_file
from torch import Tensor

from lwd.data.shards import LatentShards
from lwd.encoders.decoder import Decoder
from lwd.files import atomic_path
from lwd.images.colours import LatentColours
from lwd.images.sheets import to_uint8
from lwd.sample.path import Trajectory

TRAJECTORY, PICTURE = "trajectory.safetensors", "trajectory.png"
SHOWN = 4
_COLOUR_IMAGES = 256
_CELL_INCHES = 0.95


def write_trajectory(
    folder: Path, path: Trajectory, labels: Tensor, decoder: Decoder | None, shards: LatentShards
) -> None:
    """``trajectory.safetensors`` (standardised latents) and its picture, of the first `SHOWN` samples.

    Groups without decoder are shown in their principal directions, as `LatentColours` of the ``shards`` sees them.
    """
    with atomic_path(folder / TRAJECTORY) as temporary:
        save_file({**vars(path), "labels": labels.clone()}, temporary)
    real = shards.read(torch.arange(min(_COLOUR_IMAGES, len(shards)))).x1
    colours = {name: LatentColours.fit(part) for name, part in shards.layout.split(real).items()}
    rows = [row for i in range(min(SHOWN, path.states.shape[1])) for row in _rows(path, i, decoder, shards, colours)]
    with atomic_path(folder / PICTURE) as temporary:
        _draw(path, rows, shards.layout.names, temporary)


def _rows(
    path: Trajectory, sample: int, decoder: Decoder | None, shards: LatentShards, colours: dict[str, LatentColours]
) -> list[tuple[str, Tensor]]:
    """Of one sample, a label and images (K, c, H, W) per group: its state; of the decoded one also what is expected."""
    rows = []
    states, predictions = path.states[:, sample].float(), path.predictions[:, sample].float()
    for name, part in shards.layout.split(states).items():
        if decoder is not None and name == decoder.group:
            decoded = [decoder.decode(shards.destandardise(x), shards.layout).cpu() for x in (states, predictions)]
            rows += [(name, decoded[0]), (f"{name},\nexpected", decoded[1])]
        else:
            rows.insert(0, (name, colours[name](part)))
    return rows


def _draw(path: Trajectory, rows: list[tuple[str, Tensor]], groups: tuple[str, ...], target: Path) -> None:
    columns = len(path.taus)
    with matplotlib.rc_context({"font.size": 7.5}):
        size = (_CELL_INCHES * (columns + 0.8), _CELL_INCHES * (len(rows) + 0.5))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for (label, images), line in zip(rows, axes, strict=True):
            pixels = to_uint8(images).expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
            for image, axis in zip(pixels, line, strict=True):
                axis.imshow(image.numpy(), interpolation="nearest")
                axis.set(xticks=[], yticks=[])
            line[0].set_ylabel(label, rotation=0, ha="right", va="center")
        for k, axis in enumerate(axes[0]):
            times = "\n".join(f"{name} {float(t):.2f}" for name, t in zip(groups, path.times[k], strict=True))
            axis.set_title(f"τ = {float(path.taus[k]):.2f}\n{times}", fontsize=7.5)
        figure.savefig(target, format="png", dpi=150)
