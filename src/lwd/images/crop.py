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

from lwd.images.decode import WHITE, ImageError, to_rgb
from lwd.images.source import ImageSource

RESIZED_PIXELS = 2**27
"""The most that an image may have once its short side fits, 400 MB: only one some thousand times longer than wide
has more."""


class Crop(NamedTuple):
    """One image: uint8 (3, size, size), its label, its index in the source. With an ``error``, the image is zeros."""

    image: Tensor
    label: int
    position: int
    error: str | None
    animated: bool = False
    """Whether it is the first of several frames."""


class CropBatch(NamedTuple):
    """Images: uint8 (B, 3, size, size), labels and positions (B,) int64, B errors (None: good), animated (B,)."""

    images: Tensor
    labels: Tensor
    positions: Tensor
    errors: tuple[str | None, ...]
    animated: Tensor


class CroppedImages(Dataset[Crop]):
    """The centre crops of a source, what is transparent laid on ``background``. An image that cannot be read comes as
    a record with its error, never as an exception, so that the main process decides what becomes of it; use
    ``collate_fn=collate``."""

    def __init__(self, source: ImageSource, size: int, background: tuple[int, int, int] = WHITE) -> None:
        self.source, self.size, self.background = source, size, background

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Crop:
        label = self.source.label(index)
        try:
            picture = self.source.read(index)
        except ImageError as error:
            return self._failed(label, index, str(error))
        try:
            pixels = centre_crop(picture.image, self.size, self.background)
        except ImageError as error:
            return self._failed(label, index, f"{self.source.name(index)}: {error}")
        return Crop(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), label, index, None, picture.animated)

    def _failed(self, label: int, index: int, error: str) -> Crop:
        return Crop(torch.zeros(3, self.size, self.size, dtype=torch.uint8), label, index, error)


def collate(crops: Sequence[Crop]) -> CropBatch:
    """A batch, bad images included at their places."""
    images, labels, positions, errors, animated = zip(*crops, strict=True)
    return CropBatch(torch.stack(images), torch.tensor(labels), torch.tensor(positions), errors, torch.tensor(animated))


def centre_crop(image: Image.Image, size: int, background: tuple[int, int, int] = WHITE) -> NDArray[np.uint8]:
    """An image -> uint8 (size, size, 3), as ADM crops (Dhariwal and Nichol, arXiv 2105.05233, `center_crop_arr`).

    Made RGB by `to_rgb`, which leaves 8-bit colours without alpha as they are. Then
    halved with a box filter while its short side is at least 2 ``size``, resized bicubically until that is ``size``,
    and cut from the middle, a pixel further up or left where that is uneven. Raises ImageError for an image that is
    too long for its width, or of a mode that has no RGB.
    """
    image = to_rgb(image, background)
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    if width * height > RESIZED_PIXELS:
        raise ImageError(f"{image.width} x {image.height} pixels would become {width} x {height}")
    pixels = np.array(image.resize((width, height), Image.Resampling.BICUBIC))
    top, left = (height - size) // 2, (width - size) // 2
    return pixels[top : top + size, left : left + size]
