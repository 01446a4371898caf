"""What `lwd encode` reads: a built-in or prepared data set or images on disk, in batches for the encoders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lwd.datasets.builtin import DATASETS, every_nth, load
from lwd.datasets.prepared import SPLITS, SUFFIX, Split, read_prepared
from lwd.errors import UserError
from lwd.images.crop import Crop, CropBatch, CroppedImages, collate
from lwd.images.open import open_source
from lwd.images.source import ImageSource
from lwd.images.subset import Subset
from lwd.stages.encode.settings import EncodeSettings

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


def name_of(images: ImagesOrFiles, position: int) -> str:
    """What an image is called in reports."""
    return images.source.name(position) if isinstance(images, CroppedImages) else f"image {position}"


def image_loader(images: ImagesOrFiles, batches: list[list[int]], decoders: int | None) -> DataLoader[CropBatch]:
    """Batches of images by index; files are decoded in ``decoders`` processes (None: as many as fit), ahead of use."""
    share = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fitting = min(MOST_DECODERS, max(1, share)) if decoders is None else decoders
    workers = fitting if isinstance(images, CroppedImages) else 0
    pin = torch.cuda.is_available()
    dataset = cast(Dataset[CropBatch], images)  # DataLoader's type knows no collate_fn that changes the type
    return DataLoader(dataset, batch_sampler=batches, num_workers=workers, collate_fn=collate, pin_memory=pin)


def open_images(settings: EncodeSettings) -> dict[Split, ImagesOrFiles]:
    """The images of each split. Raises UserError for a data set that is unknown or not there."""
    prepared = Path(settings.dataset).suffix == SUFFIX
    if prepared or settings.dataset in DATASETS:
        for key in ("heldout", "heldout_every", "unlabelled"):
            if getattr(settings, key):
                raise UserError(f"encode.{key}: {settings.dataset} has held-out images of its own, and labels")
        if prepared:
            return {split: TensorImages(*pair) for split, pair in read_prepared(Path(settings.dataset)).items()}
        return {split: TensorImages(*load(settings.dataset, split)) for split in SPLITS}
    if "/" not in settings.dataset and not Path(settings.dataset).exists():
        load(settings.dataset, "train")  # says which names there are
    if settings.heldout is not None and settings.heldout_every is not None:
        raise UserError("encode.heldout_every: encode.heldout names held-out images; leave one of the two out")
    sources = _sources(settings)
    return {split: CroppedImages(source, settings.size, settings.background) for split, source in sources.items()}


def _sources(settings: EncodeSettings) -> dict[Split, ImageSource]:
    """The images on disk of each split."""
    train = open_source(settings.dataset, labelled=not settings.unlabelled)
    if settings.heldout is not None:
        return {"train": train, "heldout": open_source(settings.heldout, train, labelled=not settings.unlabelled)}
    if settings.heldout_every is None:
        return {"train": train}
    out = every_nth(torch.from_numpy(train.labels), settings.heldout_every).numpy()
    if not out.any():
        raise UserError(
            f"encode.heldout_every: no class of {settings.dataset} has {settings.heldout_every} images, so none is "
            "held out; choose a smaller number"
        )
    return {"train": Subset(train, (~out).nonzero()[0], True), "heldout": Subset(train, out.nonzero()[0], False)}
