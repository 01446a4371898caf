"""A folder of samples, as `lwd sample` leaves it and evaluation and report read it.

``samples.json`` is written last and says that all is there; ``samples.safetensors`` holds labels, seeds and nfe (N,);
the images lie in ``images.npz`` or, one file each, under ``images``; latents, on the encoders' own scale, in shards
under ``latents``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor

from lwd.errors import UserError
from lwd.images.decode import flat_picture, is_image
from lwd.images.npz import IMAGES, read_npz
from lwd.images.walk import files_in
from lwd.records import Record, read_record
from lwd.runtime.checkpoint import load_tensors

FORMAT = "lwd.samples/1"
INFO = "samples.json"
FACTS = "samples.safetensors"
NPZ = "images.npz"
IMAGE_FOLDER = "images"
LATENT_FOLDER = "latents"
SHEET = "grid.png"
RECIPE = "sampling.json"
"""What the samples are made by, from the first moment on; a folder without it is not ours."""
PARTS = "parts"
"""The folder of finished blocks, until all are there."""


def image_name(index: int, suffix: str) -> str:
    """The file of one sample."""
    return f"{index:06d}.{suffix}"


class SamplesInfo(Record):
    """The content of samples.json."""

    what: ClassVar[str] = "the description of finished samples"
    remedy: ClassVar[str] = "run `lwd sample` again"

    format: Literal["lwd.samples/1"]
    count: PositiveInt | None = None
    formats: tuple[str, ...] = ()
    checkpoint: str = ""
    schedule: str = ""


@dataclass(frozen=True)
class SampleSet:
    """A finished folder of samples: what ``samples.json`` says, and labels, seeds and nfe (N,)."""

    path: Path
    info: SamplesInfo
    labels: Tensor
    seeds: Tensor
    nfe: Tensor

    @classmethod
    def read(cls, path: Path) -> SampleSet:
        """Read a folder of samples. Raises UserError where ``path`` is not a finished folder of samples."""
        if not (path / INFO).is_file():
            raise UserError(f"{path}: no finished samples here; `lwd sample` makes them, and goes on where it stopped")
        info = read_record(path / INFO, SamplesInfo)
        facts = load_tensors(path / FACTS)
        count = info.count or facts.get("labels", torch.empty(0)).numel()
        for key in ("labels", "seeds", "nfe"):
            if key not in facts:
                raise UserError(f"{path / FACTS}: key {key!r} is missing; run `lwd sample` again")
            whole = not facts[key].is_floating_point() and not facts[key].is_complex()
            if not whole or facts[key].shape != (count,):
                form = f"{facts[key].dtype} {tuple(facts[key].shape)}"
                raise UserError(
                    f"{path / FACTS}: {key!r} is {form}, needed are {count} whole numbers; run `lwd sample` again"
                )
        kept = {"npz": NPZ, "png": IMAGE_FOLDER, "webp": IMAGE_FOLDER, "latents": LATENT_FOLDER}
        for form in info.formats:
            if form in kept and not (path / kept[form]).exists():
                raise UserError(f"{path / kept[form]}: missing; make the samples again with compute.resume=false")
        return cls(path, info, facts["labels"], facts["seeds"], facts["nfe"])

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_images(self) -> bool:
        """Whether images were kept, not latents alone."""
        return (self.path / NPZ).is_file() or (self.path / IMAGE_FOLDER).is_dir()

    def images(self, indices: Tensor | None = None, batch: int = 256) -> Iterator[Tensor]:
        """The images, or those at ``indices``, in batches: uint8 (n, 3, H, W); UserError where none were kept."""
        wanted = torch.arange(len(self)) if indices is None else indices
        read = self._reader()
        for chunk in torch.split(wanted, batch):
            yield read(chunk.tolist())

    def _reader(self) -> Any:
        if (self.path / NPZ).is_file():
            array = read_npz(self.path / NPZ).get(IMAGES)
            if array is None or array.ndim != 4 or len(array) != len(self):
                raise UserError(f"{self.path / NPZ}: does not hold the {len(self)} images; run `lwd sample` again")
            return lambda rows: _to_tensor(np.asarray(array[rows]))
        files = files_in(self.path / IMAGE_FOLDER, is_image)
        if not files:
            raise UserError(f"{self.path}: holds no images (sample.formats was {list(self.info.formats)})")
        if len(files) != len(self):
            raise UserError(f"{self.path / IMAGE_FOLDER}: {len(files)} images, there were {len(self)}")
        return lambda rows: _to_tensor(np.stack([flat_picture(files[row]) for row in rows]))


def _to_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(array).permute(0, 3, 1, 2)
