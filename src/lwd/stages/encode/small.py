"""The small networks that `lwd encode` trains on the spot: what they look at, how they are trained, how well they do.

A built-in or prepared set is in memory and is taken as it is. Of images on disk, up to ``encode.encoder_images`` are
read, averaged down to the few pixels that such a network sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lwd.data.encoded import JUDGE
from lwd.encoders.downsample import area_average
from lwd.encoders.small import SmallCNN, SmallViT, train_classifier
from lwd.encoders.training import Pause
from lwd.errors import UserError
from lwd.files import atomic_path, remove
from lwd.images.crop import CroppedImages
from lwd.images.sheets import to_unit
from lwd.runtime.checkpoint import save_tensors
from lwd.runtime.progress import progress_bar
from lwd.runtime.seeding import Stream, integer, seeded
from lwd.stages.encode.feed import ImagesOrFiles, TensorImages, image_loader, image_shape
from lwd.stages.encode.settings import RANDOM_VIT, SMALL_VIT, EncodeSettings

VIT_FILE, RANDOM_FILE = "semantic.safetensors", "random.safetensors"
SMALL = {SMALL_VIT: VIT_FILE, RANDOM_VIT: RANDOM_FILE}
JUDGE_PIXELS = 32
"""The most that the judge sees of images on disk, along either side."""
TURNS = 4
"""Images of one class teach the small ViT by how many quarter turns they are rotated."""


def small_vit(train: ImagesOrFiles, factor: int) -> SmallViT:
    """A fresh semantic encoder with one position for ``factor`` pixels, from torch's global generator.

    Raises UserError for a factor that is odd, or does not divide the images.
    """
    channels, size = image_shape(train)[:2]
    if factor % SmallViT.patch or size % factor:
        raise UserError(
            f"encode.texture.factor: {SMALL_VIT} and {RANDOM_VIT} do not take images of {size} pixels by {factor}; "
            "choose an even factor that divides them"
        )
    classes = TURNS if is_turned(train) else class_count(train)
    return SmallViT(classes=classes, image_channels=channels, image_size=SmallViT.patch * size // factor)


def small_judge(train: ImagesOrFiles) -> SmallCNN:
    """A fresh classifier for samples, from torch's global generator; of images on disk it sees `JUDGE_PIXELS`."""
    channels, size = image_shape(train)[:2]
    pixels = None
    if isinstance(train, CroppedImages):
        pixels = max(n for n in range(1, min(size, JUDGE_PIXELS) + 1) if size % n == 0)
    return SmallCNN(classes=class_count(train), image_channels=channels, image_size=pixels)


def class_count(images: ImagesOrFiles) -> int:
    """Labels run from 0 to this less one."""
    labels = images.labels if isinstance(images, TensorImages) else images.source.labels
    return int(labels.max()) + 1


def is_turned(train: ImagesOrFiles) -> bool:
    """Whether the small ViT learns quarter turns, for want of classes."""
    return isinstance(train, CroppedImages) and class_count(train) == 1


def is_judged(settings: EncodeSettings, train: ImagesOrFiles) -> bool:
    """Whether there will be a judge. Raises UserError where one is asked for and the images have one class."""
    if isinstance(train, TensorImages):
        return True
    if settings.judge and len(set(train.source.labels.tolist())) < 2:
        raise UserError("encode.judge: a classifier tells classes apart, and the images have one; set it to false")
    return settings.judge


def in_memory(images: ImagesOrFiles, settings: EncodeSettings, pixels: int | None, show: bool) -> TensorImages:
    """What a small network sees: averaged down to ``pixels``, where the images are on disk; else as they are.

    Images that cannot be read are passed over. Raises UserError where none can.
    """
    if isinstance(images, TensorImages):
        return images
    parts, labels = [], []
    for batch, label in readable(images, settings, settings.encoder_images, show):
        unit = to_unit(batch)
        parts.append(unit if pixels is None else area_average(unit, pixels))
        labels.append(label)
    if not parts:
        raise UserError("encode: none of the images can be read; nothing can be trained on them")
    return TensorImages(torch.cat(parts), torch.cat(labels))


def readable(images: CroppedImages, settings: EncodeSettings, most: int, show: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of images (n, 3, H, H) uint8 and labels (n,): of up to ``most``, spread evenly, what can be read."""
    count = min(most, len(images))
    rows = torch.arange(count) * len(images) // count
    batches = [batch.tolist() for batch in torch.split(rows, settings.batch)]
    with progress_bar("read images", count, show=show) as advance:
        for crops in image_loader(images, batches, settings.decoders):
            good = torch.tensor([error is None for error in crops.errors])
            if bool(good.any()):
                yield crops.images[good], crops.labels[good]
            advance(len(good))


def rotated(images: TensorImages) -> TensorImages:
    """Every image turned by 0 to 3 quarters, labelled by how many (Gidaris et al., arXiv 1803.07728)."""
    turned = [torch.rot90(images.images, turns, (2, 3)) for turns in range(TURNS)]
    return TensorImages(torch.cat(turned), torch.arange(TURNS).repeat_interleave(len(images)))


def trainings(
    settings: EncodeSettings,
    seed: int,
    folder: Path,
    train: ImagesOrFiles,
    factor: int,
    show: bool,
    leave: Callable[[], bool],
) -> Iterator[Callable[[], None]]:
    """What is still to be done for the semantic encoder and the judge, those that are asked for, one after the other;
    ``leave`` as in `write_trained`."""
    asked = {settings.repa.encoder, *(part.encoder for part in settings.others)}
    whole = isinstance(train, TensorImages)  # always gets both
    with seeded(Stream.INITIALISE, seed):
        vit = (
            small_vit(train, factor if asked & SMALL.keys() else SmallViT.patch)
            if whole or asked & SMALL.keys()
            else None
        )
        judge = small_judge(train) if is_judged(settings, train) else None
    if vit is not None and RANDOM_VIT in asked and not (folder / RANDOM_FILE).is_file():
        save_weights(vit, folder / RANDOM_FILE)

    def learn(network: SmallViT | SmallCNN, pause: Pause) -> bool:
        if isinstance(network, SmallViT):
            title, steps, distortion, part = "semantic encoder", settings.encoder_steps, 0.0, 0
            seen = lessons(network, train, settings, show)
        else:
            title, steps, distortion, part = "judge", settings.judge_steps, settings.judge_distortion, 1
            seen = in_memory(train, settings, network.image_size, show)
        with progress_bar(title, steps, show=show) as advance:
            how = {"steps": steps, "seed": integer(Stream.ENCODER, seed, part)}
            return train_classifier(
                network, seen.images, seen.labels, **how, distortion=distortion, progress=advance, pause=pause
            )

    if vit is not None and (whole or SMALL_VIT in asked) and not (folder / VIT_FILE).is_file():
        yield partial(write_trained, vit, folder / VIT_FILE, partial(learn, vit), leave)
    if judge is not None and not (folder / JUDGE).is_file():
        yield partial(write_trained, judge, folder / JUDGE, partial(learn, judge), leave)


def write_trained(
    network: torch.nn.Module, path: Path, learn: Callable[[Pause], bool], leave: Callable[[], bool]
) -> None:
    """Train a network and write it to ``path``; where ``leave`` says to go, what there is stays beside, hidden, and the
    next call goes on with it."""
    pause = Pause(path.with_name(f".{path.stem}.unfinished"), leave)
    if learn(pause):
        save_weights(network, path)
        remove(pause.path)


def lessons(vit: SmallViT, images: ImagesOrFiles, settings: EncodeSettings, show: bool) -> TensorImages:
    """What the small ViT learns from and is examined on: images of classes, or where there is one, turned ones."""
    seen = in_memory(images, settings, vit.image_size, show)
    return rotated(seen) if is_turned(images) else seen


@torch.inference_mode()
def accuracy(model: SmallViT | SmallCNN, images: TensorImages, batch: int = 500) -> float:
    """Which part of the images the network puts into their class."""
    device = next(model.parameters()).device
    guesses = [model(chunk.to(device)).argmax(1).cpu() for chunk in torch.split(images.images, batch)]
    return float((torch.cat(guesses) == images.labels).double().mean())


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """Write what `load_module` reads, whole or not at all."""
    with atomic_path(path) as temporary:
        save_tensors(temporary, model.state_dict())
