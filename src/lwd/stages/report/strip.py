"""States along the sampling trajectory (the paper's Figure 1): what the network expects of each group, and when."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lwd.groups import Layout
from lwd.images.colours import LatentColours
from lwd.plots import figures as plots
from lwd.plots.drawing import Drawing
from lwd.plots.figures import DASHED, DOTTED, SOLID, Line
from lwd.plots.images import tile
from lwd.plots.text import listed
from lwd.run import RunConfig
from lwd.sample.path import TRAJECTORY, Trajectory
from lwd.stages.report.samples import Pixels, SampleFolder, sample_folders
from lwd.stages.report.variants import Variants

SHOWN = 3
_COLOUR_IMAGES = 256
_DASHES = (SOLID, DASHED, DOTTED)


@dataclass(frozen=True)
class Row:
    """One row of a strip: a label and a picture per state, as data URIs; ``first``: a new sample starts here."""

    label: str
    pictures: list[str]
    first: bool


@dataclass(frozen=True)
class Strip:
    """One variant: the global times, each group's local times, the rows, and how far each group was settled."""

    variant: str
    note: str
    colour: str
    taus: list[str]
    times: list[tuple[str, list[str]]]
    rows: list[Row]
    settled: Drawing


@dataclass(frozen=True)
class StripSection:
    """A strip per variant; ``samples``: how many trajectories `settled` averages over."""

    leader: str
    decoded: str
    strips: list[Strip]
    samples: int
    latent_note: str


def strip_section(config: RunConfig, variants: Variants, pixels: Pixels | None) -> StripSection | None:
    """None where no trajectory was kept, or there is no data to decode it with."""
    folders = sample_folders(config, variants, TRAJECTORY)
    if not folders or pixels is None:
        return None
    trajectories = [Trajectory.read(folder.path / TRAJECTORY, config.layout) for folder in folders]
    real = pixels.heldout.read(torch.arange(min(_COLOUR_IMAGES, len(pixels.heldout)))).x1
    colours = {name: LatentColours.fit(part) for name, part in config.layout.split(real).items()}
    groups = [config.leader, *(name for name in config.layout.names if name != config.leader)]
    strips = [
        _strip(folder, trajectory, groups, pixels, colours, variants.colour(folder.variant))
        for folder, trajectory in zip(folders, trajectories, strict=True)
    ]
    samples = min(trajectory.predictions.shape[1] for trajectory in trajectories)
    return StripSection(
        config.leader, pixels.decoder.group, strips, samples, _latent_note(config.layout, groups, pixels.decoder.group)
    )


def _latent_note(layout: Layout, groups: list[str], decoded: str) -> str:
    """How the latents are drawn, for the reader."""
    channels = {group.name: group.channels for group in layout.groups}
    ways = {1: "from blue to yellow", 2: "as hue and saturation, grey being the mean"}
    said = [
        f"{name} in colour ({ways.get(channels[name], 'three principal directions')})"
        for name in groups
        if name != decoded
    ]
    return f"{listed([*said, f'{decoded} as the image it decodes to'])}."


def settled(trajectory: Trajectory, layout: Layout) -> Tensor:
    """(K, G): how much of the way each group's prediction has gone from the first state's to the last one's.

    1 - |x_k - x_K|^2 / |x_0 - x_K|^2 over all samples and entries: 0 at the start, 1 at the end.
    """
    parts = []
    for x in torch.split(trajectory.predictions.double(), layout.sizes, dim=2):
        distance = (x - x[-1]).square().flatten(1).sum(1)
        parts.append(1 - distance / distance[0].clamp(min=1e-12))
    return torch.stack(parts, dim=1)


def _strip(
    folder: SampleFolder,
    trajectory: Trajectory,
    groups: list[str],
    pixels: Pixels,
    colours: dict[str, LatentColours],
    colour: str,
) -> Strip:
    names = pixels.layout.names
    progress = settled(trajectory, pixels.layout)
    lines = [
        Line(name, trajectory.taus.tolist(), progress[:, names.index(name)].tolist(), colour, _DASHES[i % len(_DASHES)])
        for i, name in enumerate(groups)
    ]
    rows = [
        row
        for i in range(min(SHOWN, trajectory.states.shape[1]))
        for row in _rows(trajectory, i, groups, pixels, colours)
    ]
    return Strip(
        folder.variant,
        folder.caption,
        colour,
        [f"{float(tau):.2f}" for tau in trajectory.taus],
        [(name, [f"{float(t):.2f}" for t in trajectory.times[:, names.index(name)]]) for name in groups],
        rows,
        plots.settled(lines),
    )


def _rows(
    trajectory: Trajectory, sample: int, groups: list[str], pixels: Pixels, colours: dict[str, LatentColours]
) -> list[Row]:
    """Of one sample: a row per group of what is expected of it, the leader first, and the decoded state itself."""
    predictions, states = trajectory.predictions[:, sample].float(), trajectory.states[:, sample].float()
    decoded = pixels.decoder.group
    rows = []
    for name in groups:
        if name == decoded:
            images = pixels.decode_standardised(predictions)
        else:
            images = colours[name](pixels.layout.split(predictions)[name])
        rows.append((f"{name}, expected", images))
    rows.append((f"{decoded}, as it is", pixels.decode_standardised(states)))
    return [Row(label, [tile(image) for image in images], i == 0) for i, (label, images) in enumerate(rows)]
