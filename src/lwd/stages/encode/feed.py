"""What `lwd encode` reads: a built-in or prepared data set or images on disk, in batches for the encoders."""

from __future__ import annotations

import os
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lwd.images.crop import Crop, CropBatch, CroppedImages, collate

MOST_DECODERS = 8


class TensorImages(Dataset[Crop]):
    """A data set in memory, built in or prepared: images (N, c, H, W) in [-1, 1] and labels (N,)."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Crop:
        return Crop(self.images[index], int(self.labels[index]), index, None)


ImagesOrFiles = TensorImages | CroppedImages


def image_shape(images: ImagesOrFiles) -> tuple[int, ...]:
    """(c, H, W) of every image."""
    return tuple(images.images.shape[1:]) if isinstance(images, TensorImages) else (3, images.size, images.size)


def image_loader(images: ImagesOrFiles, batches: list[list[int]], decoders: int | None) -> DataLoader[CropBatch]:
    """Batches of images by index; files are decoded in ``decoders`` processes (None: as many as fit), ahead of use."""
    share = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fitting = min(MOST_DECODERS, max(1, share)) if decoders is None else decoders
    workers = fitting if isinstance(images, CroppedImages) else 0
    pin = torch.cuda.is_available()
    dataset = cast(Dataset[CropBatch], images)  # DataLoader's type knows no collate_fn that changes the type
    return DataLoader(dataset, batch_sampler=batches, num_workers=workers, collate_fn=collate, pin_memory=pin)
