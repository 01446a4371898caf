"""Samples of every variant beside real held-out images."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lwd.data.encoded import MANIFEST
from lwd.data.samples import INFO, SampleSet
from lwd.data.shards import LatentShards
from lwd.encoders.decoder import Decoder, load_decoder
from lwd.groups import Layout
from lwd.images.sheets import to_unit
from lwd.plots.images import sheet
from lwd.plots.text import count
from lwd.run import RunConfig
from lwd.stages.report.variants import Variants

ROWS, COLUMNS = 6, 10


@dataclass(frozen=True)
class SampleFolder:
    """A folder under OUTPUT/samples; a comparison's is named VARIANT-seedSEED-STEPS, others have no seed and steps."""

    path: Path
    variant: str
    seed: int | None = None
    steps: int | None = None

    @property
    def caption(self) -> str:
        """What it holds."""
        known = self.seed is not None and self.steps is not None
        return f"{count(self.steps or 0)} steps, seed {self.seed}" if known else ""


@dataclass(frozen=True)
class Sheet:
    """One contact sheet: a title, a note, the picture as data URI and the name of the variant's colour, if any."""

    title: str
    note: str
    picture: str
    colour: str | None


@dataclass(frozen=True)
class SamplesSection:
    """The sheets, real images last; ``by_class``: whether every column shows one class."""

    sheets: list[Sheet]
    by_class: bool


def sample_folders(config: RunConfig, variants: Variants, holding: str) -> list[SampleFolder]:
    """One folder per variant that has the file ``holding``: its first seed, and of that the largest budget."""
    found: dict[str, list[SampleFolder]] = {}
    for path in sorted((config.output / "samples").glob(f"*/{holding}")):
        match = re.fullmatch(r"(.+)-seed(\d+)-(\d+)", path.parent.name)
        folder = SampleFolder(path.parent, path.parent.name)
        if match:
            folder = SampleFolder(path.parent, match[1], int(match[2]), int(match[3]))
        found.setdefault(folder.variant, []).append(folder)
    picked = {name: min(each, key=lambda f: (f.seed or 0, -(f.steps or 0))) for name, each in found.items()}
    return [picked[name] for name in variants.in_order(picked)]


@dataclass(frozen=True)
class Pixels:
    """What turns latents into images: the held-out shards (their scale and the real images) and the decoder."""

    layout: Layout
    heldout: LatentShards
    decoder: Decoder

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, C, ...) on the encoders' own scale -> images (N, c, H', W')."""
        return self.decoder.decode(latents, self.layout)

    def decode_standardised(self, latents: Tensor) -> Tensor:
        """Latents (N, C, ...) as the network sees them -> images (N, c, H', W')."""
        return self.decode(self.heldout.destandardise(latents))


def read_pixels(config: RunConfig) -> Pixels | None:
    """None where the encoded data is not there."""
    if not (config.data_path / MANIFEST).is_file() or not config.has_shards("heldout"):
        return None
    return Pixels(config.layout, config.shards("heldout", features=False), load_decoder(config.data_path))


def samples_section(config: RunConfig, variants: Variants, pixels: Pixels | None) -> SamplesSection | None:
    """None where there are no samples, or no data to decode them with; latents alone are passed over."""
    folders = sample_folders(config, variants, INFO)
    if not folders or pixels is None:
        return None
    sheets, balanced = [], []
    for folder in folders:
        samples = SampleSet.read(folder.path)
        if not samples.has_images:
            continue
        rows = pick(samples.labels)
        images = to_unit(torch.cat(list(samples.images(rows.flatten()))))
        picture = sheet(images, rows.shape[1])
        sheets.append(Sheet(folder.variant, folder.caption, picture, variants.colour(folder.variant)))
        balanced.append(has_classes(samples.labels))
    if not sheets:
        return None
    rows = pick(pixels.heldout.labels())
    picture = sheet(pixels.decode_standardised(pixels.heldout.read(rows.flatten()).x1), rows.shape[1])
    sheets.append(Sheet("real", "held-out images", picture, None))
    return SamplesSection(sheets, all(balanced))


def has_classes(labels: Tensor) -> bool:
    """Whether there are several classes, each of the first COLUMNS with at least two images."""
    counts = [int((labels == c).sum()) for c in _classes(labels)]
    return len(counts) > 1 and min(counts) > 1


def pick(labels: Tensor) -> Tensor:
    """Which images to show (rows, columns): the first of each class, a class a column, else the first of the file."""
    if not has_classes(labels):
        columns = min(COLUMNS, len(labels))
        rows = min(ROWS, len(labels) // columns)
        return torch.arange(rows * columns).view(rows, columns)
    where = [(labels == c).nonzero()[:ROWS, 0] for c in _classes(labels)]
    rows = min(len(each) for each in where)
    return torch.stack([each[:rows] for each in where], dim=1)


def _classes(labels: Tensor) -> list[int]:
    return sorted(set(labels.tolist()))[:COLUMNS]
