"""What the plan has to know of the data: from shards where there are some, else from what `lwd encode` would make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from lwd.datasets.builtin import DATASETS
from lwd.datasets.prepared import SUFFIX
from lwd.encoders.small import SmallViT
from lwd.encoders.vae import DIFFUSERS, SDVAE, blank_autoencoder
from lwd.encoders.vision import load_transformers_encoder, vision_model
from lwd.errors import UserError
from lwd.stages.encode.feed import image_shape, open_images
from lwd.stages.encode.settings import NONE, PLAIN, SAME, TRANSFORMERS
from lwd.stages.encode.small import SMALL, small_vit
from lwd.stages.experiment import Experiment


@dataclass(frozen=True)
class Data:
    """``shape``: the latents' trailing axes; ``pixels`` (c, H, W) of an image, None where that is not known;
    ``features``: channels and positions of the REPA features, None where there are none; ``images`` of each split,
    None: not known. ``source`` says where this comes from."""

    shape: tuple[int, ...]
    pixels: tuple[int, ...] | None
    features: tuple[int, int] | None
    images: int | None
    heldout: int | None
    source: str

    @property
    def feature_dim(self) -> int | None:
        """Channels of the REPA features."""
        return None if self.features is None else self.features[0]


def data_of(config: Experiment, images: int | None = None) -> Data:
    """The facts of an experiment's data; ``images``: how many there are to be in training, where none are there yet.

    Raises UserError where there are no shards and the settings of `lwd encode` do not say what they would be.
    """
    folder = config.data_path / "train"
    if config.has_shards("train"):
        return _of_shards(config, folder)
    groups = {config.encode.texture.group, *(part.group for part in config.encode.others)}
    if groups != set(config.layout.names):
        raise UserError(
            f"{folder}: no shards here, and encode makes the groups {sorted(groups)}; write the shards first"
        )
    return _of_settings(config, images)


def _of_shards(config: Experiment, folder: Path) -> Data:
    shards = config.shards("train", features=True)
    dim, positions = shards.feature_dim, torch.Size(shards.feature_grid).numel()
    held = len(config.shards("heldout", features=False)) if config.has_shards("heldout") else None
    features = None if dim is None else (dim, positions)
    return Data(shards.shape, _pixels(config, shards.shape), features, len(shards), held, f"the shards in {folder}")


def _pixels(config: Experiment, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Of the images that latents on a grid come from, as far as encode says; grey where the data set is. None, too,
    where the autoencoder is not at hand: what is encoded does not need it."""
    if len(shape) != 2 or not config.encode.texture.group:
        return None
    try:
        factor = _factor(config)
    except UserError:
        return None
    channels = 1 if config.encode.dataset.startswith(("digits", "fashion")) else 3
    return (channels, *(n * factor for n in shape))


def _factor(config: Experiment) -> int:
    texture = config.encode.texture
    if texture.encoder == DIFFUSERS:
        return blank_autoencoder(texture.path).factor
    return SDVAE.factor if texture.encoder == "sd-vae-f16d32" else texture.factor


def _of_settings(config: Experiment, images: int | None) -> Data:
    settings = config.encode
    known = settings.dataset in DATASETS or Path(settings.dataset).suffix == SUFFIX or Path(settings.dataset).exists()
    opened = open_images(settings) if known else {}
    train = opened.get("train")
    pixels = (3, settings.size, settings.size) if train is None else image_shape(train)
    grid = pixels[1] // _factor(config)
    heldout = opened.get("heldout")
    name = settings.semantic.encoder if settings.repa.encoder == SAME else settings.repa.encoder
    width: int | None = None
    if name in SMALL:
        width = _width(SmallViT() if train is None else small_vit(train, _factor(config)))
    elif name == TRANSFORMERS:
        chosen = settings.semantic if settings.repa.encoder == SAME else settings.repa
        width = None if chosen.path is None else load_transformers_encoder(chosen.path, 1).width
    elif name not in (NONE, *PLAIN):
        width = vision_model(name).width
    counted = len(train) if train is not None else images
    source = f"encode.dataset={settings.dataset}" if train is not None else "encode's settings; the images are not here"
    positions = grid * grid
    return Data(
        (grid, grid),
        pixels,
        None if width is None else (width, positions),
        counted,
        None if heldout is None else len(heldout),
        source,
    )


def _width(vit: SmallViT) -> int:
    return int(vit.norm.weight.numel())
