"""ADM's centre crop, and the cropped images of a source for a DataLoader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from lwd.images.source import ImageError, ImageSource

RESIZED_PIXELS = 2**27
"""The most that an image may have once its short side fits, 400 MB: only one some thousand times longer than wide
has more."""


class Crop(NamedTuple):
    """One image: uint8 (3, size, size), its label, its index in the source. With an ``error``, the image is zeros."""

    image: Tensor
    label: int
    position: int
    error: str | None


class CropBatch(NamedTuple):
    """Images: uint8 (B, 3, size, size), labels and positions (B,) int64, and B errors, None for the good images."""

    images: Tensor
    labels: Tensor
    positions: Tensor
    errors: tuple[str | None, ...]


class CroppedImages(Dataset[Crop]):
    """The centre crops of a source. An image that cannot be read comes as a record with its error, never as an
    exception, so that the main process decides what becomes of it; use ``collate_fn=collate``."""

    def __init__(self, source: ImageSource, size: int) -> None:
        self.source, self.size = source, size

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Crop:
        label = self.source.label(index)
        try:
            image = self.source.read(index)
        except ImageError as error:
            return self._failed(label, index, str(error))
        try:
            pixels = centre_crop(image, self.size)
        except ImageError as error:
            return self._failed(label, index, f"{self.source.name(index)}: {error}")
        return Crop(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), label, index, None)

    def _failed(self, label: int, index: int, error: str) -> Crop:
        return Crop(torch.zeros(3, self.size, self.size, dtype=torch.uint8), label, index, error)


def collate(crops: Sequence[Crop]) -> CropBatch:
    """A batch, bad images included at their places."""
    images, labels, positions, errors = zip(*crops, strict=True)
    return CropBatch(torch.stack(images), torch.tensor(labels), torch.tensor(positions), errors)


def centre_crop(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """An image -> uint8 (size, size, 3), as ADM crops (Dhariwal and Nichol, arXiv 2105.05233, `center_crop_arr`).

    Converted to RGB as Pillow does it: alpha is dropped, 16-bit grey clipped at 255, EXIF rotation not applied. Then
    halved with a box filter while its short side is at least 2 ``size``, resized bicubically until that is ``size``,
    and cut from the middle, a pixel further up or left where that is uneven. Raises ImageError for an image that is
    too long for its width, or of a mode that has no RGB.
    """
    try:
        image = image.convert("RGB")
    except ValueError as error:
        raise ImageError(f"mode {image.mode} cannot be converted to RGB") from error
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    if width * height > RESIZED_PIXELS:
        raise ImageError(f"{image.width} x {image.height} pixels would become {width} x {height}")
    pixels = np.array(image.resize((width, height), Image.Resampling.BICUBIC))
    top, left = (height - size) // 2, (width - size) // 2
    return pixels[top : top + size, left : left + size]
