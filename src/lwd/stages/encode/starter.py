"""`lwd init`: a look at a folder of pictures, and a config to begin with that fits them."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lwd.errors import UserError
from lwd.files import check_new_place, write_text
from lwd.images.decode import ImageError, is_image
from lwd.images.folder import FolderSource
from lwd.images.source import LABELS_CSV
from lwd.images.walk import files_in, folders_in

MOST_READ = 64
"""So many pictures are opened, spread evenly; the others are listed."""
MOST_PIXELS, STEP, LEAST_GRID = 64, 8, 6
"""The size that is chosen: a multiple of STEP up to MOST_PIXELS, and of the latents' grid at least LEAST_GRID."""
FACTORS = (8, 4, 2)


@dataclass(frozen=True)
class Seen:
    """What a folder holds: pictures by class (all under "" where there are none), and of those that were opened the
    short sides in pixels, how many there are of each mode, and how many cannot be read."""

    per_class: dict[str, int]
    labelled: bool
    short_sides: list[int]
    modes: dict[str, int]
    unreadable: int

    @property
    def pictures(self) -> int:
        """How many there are."""
        return sum(self.per_class.values())

    @property
    def size(self) -> int:
        """To which the pictures are cropped: what the median short side allows."""
        return max(STEP, min(MOST_PIXELS, int(np.median(self.short_sides)) // STEP * STEP))

    def __str__(self) -> str:
        """In one line."""
        classes = f"{len(self.per_class)} classes" if self.labelled else "no classes"
        modes = ", ".join(f"{mode} {count}" for mode, count in sorted(self.modes.items()))
        least, most = min(self.short_sides), max(self.short_sides)
        bad = f", {self.unreadable} cannot be read" * bool(self.unreadable)
        opened = len(self.short_sides) + self.unreadable
        sides = f"short sides {least} to {most} pixels; modes {modes}"
        pictures = f"{self.pictures} picture{'s' * (self.pictures != 1)}"
        return f"{pictures}, {classes}; of {opened} opened: {sides}{bad}"


def look(folder: Path) -> Seen:
    """List a folder of pictures and open some of them.

    Class subfolders or a labels.csv give classes; pictures right in the folder are unlabelled. Raises UserError where
    there is no folder, no picture that can be read, or where labels and pictures do not match.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name a folder of pictures")
    labelled = (folder / LABELS_CSV).is_file() or bool(folders_in(folder)) or not files_in(folder, is_image)
    source = FolderSource(folder, labelled)
    counts = np.bincount(source.labels)
    names = source.classes or [str(label) for label in range(len(counts))]
    per_class = dict(zip(names, counts.tolist(), strict=True)) if labelled else {"": len(source)}
    count = min(MOST_READ, len(source))
    sides: list[int] = []
    modes: Counter[str] = Counter()
    for number in range(count):
        try:
            image = source.read(number * len(source) // count).image
        except ImageError:
            continue
        sides.append(min(image.size))
        modes[image.mode] += 1
    if not sides:
        raise UserError(f"{folder}: none of the {count} pictures that were opened can be read")
    return Seen(per_class, labelled, sides, dict(modes), count - len(sides))


def write_starter(folder: Path, out: Path | None) -> tuple[Path, Seen]:
    """Write a commented config for a folder of pictures to ``out``, by default its name in the current folder.

    Raises UserError as `look` does, where a file would be replaced, and for too few pictures.
    """
    name = re.sub(r"[^\w-]+", "-", folder.resolve().name).strip("-") or "pictures"
    out = out or Path(f"{name}.yaml")
    check_new_place(out)
    seen = look(folder)
    most = max(seen.per_class.values())
    every = next((n for n in (5, 2) if most >= 2 * n), None)
    if every is None:
        raise UserError(f"{folder}: one class at least needs 4 pictures, some of them held out; found {seen.pictures}")
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in str(folder)):
        raise UserError(f"{folder}: a name that is no text cannot stand in a config; rename the folder")
    write_text(out, _config(folder, name, seen, every))
    return out, seen


def _config(folder: Path, name: str, seen: Seen, every: int) -> str:
    size = seen.size
    factor = next((f for f in FACTORS if size // f >= LEAST_GRID), FACTORS[-1])
    exact = factor == FACTORS[-1]
    texture = "identity" if exact else "small-vae"
    channels = 3 * factor**2 if exact else 8
    how = "pixels, exactly" if exact else "a small VAE, trained on the spot; its reconstruction error is printed"
    labels = (
        "" if seen.labelled else "\n  unlabelled: true                         # the pictures lie in no class folders"
    )
    judge = (
        "true                              # a classifier, by which lwd evaluate measures"
        if len(seen.per_class) > 1
        else "false                             # no classes: nothing to train the evaluating classifier on"
    )
    lesson = "their classes" if len(seen.per_class) > 1 else "which way up they are"
    return f"""# {seen}.
# Written by `lwd init`; every key: `lwd keys`. In this order: lwd encode, sweep, train, sample, evaluate, report.
output: {json.dumps(f"runs/{name}")}
groups:
  - {{name: tex, channels: {channels}, weight: 1}}    # {how}
  - {{name: sem, channels: 4, weight: 2}}    # principal components of a small ViT's features
leader: sem
data: {{flip: true}}                         # false where left and right are not alike
model: {{name: LightningDiT-Ti/1, num_classes: {max(len(seen.per_class), 1)}, depth: 3}}
compute: {{checkpoint_every: 250, keep_checkpoints: 1}}
encode:
  dataset: {json.dumps(str(folder), ensure_ascii=False)}
  heldout_every: {every}                         # of each class, every so many-th picture is held out{labels}
  size: {size}                                 # the middle of each picture, so many pixels square; a multiple of 8
  background: [255, 255, 255]              # under what is transparent
  on_error: skip                           # unreadable.csv lists what was left out
  judge: {judge}
  texture: {{group: tex, encoder: {texture}, factor: {factor}}}    # a grid of {size // factor} x {size // factor}
  semantic: {{group: sem, encoder: small-vit}}     # learns {lesson}; or random-vit; or downsample, with 3 channels
  encoder_steps: 120                       # few, for two cores; the defaults (400, 400, 1000) make better encoders
  judge_steps: 120
  vae_steps: 500
  # With a network, or its files: dinov2-b, clip-b16, sd-vae-f16d32 at size 256 (docs/data.md).
probe: {{steps: 1000, burn_in: 500, batch: 32, lr: 1.0e-3, rho_lr: 0.02}}
sweep: {{kinetic_weights: [0.01, 0.03, 0.1, 0.3]}}
train: {{steps: 2000, batch: 32, lr: 1.0e-3, ema_decay: 0.99}}
sample: {{num: 200, batch: 50}}
"""
