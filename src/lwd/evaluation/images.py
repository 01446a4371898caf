"""Sources of images: an npz, a folder of pictures, the real images behind latents; anything else with this protocol."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lwd.data.samples import IMAGE_FOLDER, NPZ, SampleSet
from lwd.encoders.decoder import decode_rgb, load_decoder
from lwd.errors import UserError, called
from lwd.files import checksum
from lwd.images.decode import EXTENSIONS, flat_picture, is_image
from lwd.images.npz import IMAGES, LABELS, verify_npz
from lwd.images.walk import summary, walk
from lwd.run import RunConfig

_READERS = 8


class Images(Protocol):
    """Images of one size in a fixed order, read by number; labels (N,) where they are known."""

    name: str
    labels: Tensor | None
    facts: Mapping[str, Any]
    """What else is known of them, for the record."""

    def __len__(self) -> int:
        """How many."""

    def read(self, rows: Tensor) -> Tensor:
        """rows (n,) int64 -> uint8 (n, 3, H, W)."""

    def fingerprint(self) -> str:
        """A hash of everything that decides the pixels and their order."""


class ArrayImages:
    """The array ``arr_0`` (N, H, W, 3) uint8 of an npz; ``arr_1`` is taken for labels where it is N integers.

    Raises UserError for another dtype or shape, and for fewer than two images.
    """

    def __init__(
        self, path: str | Path, arrays: Mapping[str, NDArray[Any]], labels: Tensor | None = None, facts: Any = None
    ) -> None:
        array = arrays[IMAGES]
        if array.dtype != np.uint8:
            raise UserError(f"{path}: {IMAGES} is {array.dtype}; images must be uint8 in [0, 255]")
        if array.ndim != 4 or array.shape[3] != 3 or 0 in array.shape:
            raise UserError(f"{path}: {IMAGES} has shape {array.shape}; images must be (N, height, width, 3)")
        _check_count(path, len(array))
        self.name, self._path, self._array = str(path), Path(path), array
        self.labels = labels if labels is not None else _labels(arrays, len(array))
        self.facts: Mapping[str, Any] = facts or {}

    def __len__(self) -> int:
        return len(self._array)

    def read(self, rows: Tensor) -> Tensor:
        """See `Images`."""
        return torch.from_numpy(np.array(self._array[rows.numpy()])).permute(0, 3, 1, 2)

    def fingerprint(self) -> str:
        """Of the file; raises UserError where it is damaged."""
        verify_npz(self._path)
        return checksum(self._path)


class PictureImages:
    """All pictures under a folder (`lwd.images.walk`), by name; grey ones are made RGB.

    Raises UserError for fewer than two, and where ``labels`` (N,) are of another number.
    """

    def __init__(self, folder: str | Path, labels: Tensor | None = None, facts: Any = None) -> None:
        folder = Path(folder)
        found = walk(folder, is_image)
        self._files: Sequence[Path] = [folder / name for name in sorted(found.files)]
        if not self._files:
            raise UserError(f"{folder}: holds no pictures ({', '.join(EXTENSIONS)}) and no finished samples")
        _check_count(folder, len(self._files))
        if labels is not None and len(labels) != len(self._files):
            raise UserError(f"{folder}: holds {len(self._files)} pictures, samples.json says {len(labels)}")
        self.name, self._folder, self.labels = str(folder), folder, labels
        skipped = {"skipped": f"{len(found.left_out)} files: {summary(found.left_out)}"} if found.left_out else {}
        self.facts: Mapping[str, Any] = {**(facts or {}), **skipped}

    def __len__(self) -> int:
        return len(self._files)

    @cached_property
    def _size(self) -> tuple[int, ...]:
        return flat_picture(self._files[0]).shape

    def read(self, rows: Tensor) -> Tensor:
        """See `Images`; raises UserError for a picture of another size."""
        files = [self._files[row] for row in rows.tolist()]
        with ThreadPoolExecutor(_READERS) as pool:
            arrays = list(pool.map(flat_picture, files))
        for file, array in zip(files, arrays, strict=True):
            if array.shape != self._size:
                sizes = " and ".join(f"{width}x{height}" for height, width, _ in (array.shape, self._size))
                raise UserError(f"{file}: pictures of different sizes, {sizes} ({self._files[0]}); make them one size")
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)

    def fingerprint(self) -> str:
        """Of all names and contents, in order."""
        with ThreadPoolExecutor(_READERS) as pool:
            sums = pool.map(checksum, self._files)
            listed = [
                (path.relative_to(self._folder).as_posix(), digest)
                for path, digest in zip(self._files, sums, strict=True)
            ]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


class RealImages:
    """The images of a split of encoded data, decoded from their latents.

    Raises UserError where the data or its decoder is missing, and for fewer than two images.
    """

    facts: Mapping[str, Any] = {}

    def __init__(self, config: RunConfig, split: str) -> None:
        self._shards, self._decoder = config.shards(split, features=False), load_decoder(config.data_path)
        _check_count(self._shards.path, len(self._shards))
        self.name, self._layout = called(str(self._shards.path)), config.layout
        self.labels: Tensor | None = self._shards.labels()
        self._fingerprint = f"{split} of {config.data_fingerprint()}"

    def __len__(self) -> int:
        return len(self._shards)

    def read(self, rows: Tensor) -> Tensor:
        """See `Images`."""
        latents = self._shards.destandardise(self._shards.read(rows).x1)
        return decode_rgb(self._decoder, latents, self._layout, rows)

    def fingerprint(self) -> str:
        """By the data's manifest."""
        return hashlib.sha256(self._fingerprint.encode()).hexdigest()


def sampled_images(folder: str | Path, arrays: Any) -> Images:
    """The images of a finished folder of samples; ``arrays``: an npz's path -> its arrays by name.

    Raises UserError for an unfinished folder, and for one that holds no images.
    """
    folder = Path(folder)
    samples = SampleSet.read(folder)
    facts = {
        "nfe": float(samples.nfe.double().mean()),
        "schedule": samples.info.schedule,
        "checkpoint": samples.info.checkpoint,
    }
    if (folder / NPZ).is_file():
        found = arrays(folder / NPZ)
        if IMAGES not in found or len(found[IMAGES]) != len(samples):
            raise UserError(f"{folder / NPZ}: does not hold the {len(samples)} images; run `lwd sample` again")
        return ArrayImages(folder / NPZ, found, samples.labels, facts)
    if not (folder / IMAGE_FOLDER).is_dir():
        kept = f"sample.formats was {list(samples.info.formats)}"
        raise UserError(f"{folder}: holds no images ({kept}), and images are what is measured; decode and name them")
    return PictureImages(folder / IMAGE_FOLDER, samples.labels, facts)


def _labels(arrays: Mapping[str, NDArray[Any]], count: int) -> Tensor | None:
    labels = arrays.get(LABELS)
    fits = labels is not None and labels.shape == (count,) and labels.dtype.kind in "iu"
    return torch.from_numpy(labels.astype(np.int64)) if labels is not None and fits else None


def _check_count(where: str | Path, count: int) -> None:
    if count < 2:
        raise UserError(f"{where}: holds {count} image; a distribution needs at least 2")
