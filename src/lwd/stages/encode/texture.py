"""The texture encoder that `lwd encode` trains on the spot, and how well it does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lwd.data.encoded import TEXTURE
from lwd.datasets.prepared import Split
from lwd.encoders.small_vae import SmallVAE, reconstruction, train_vae
from lwd.encoders.texture import TextureEncoder
from lwd.encoders.training import Pause
from lwd.encoders.vae import Autoencoder
from lwd.errors import UserError
from lwd.images.sheets import to_uint8
from lwd.runtime.processes import Processes
from lwd.runtime.progress import progress_bar
from lwd.runtime.seeding import Stream, integer, seeded
from lwd.stages.encode.feed import ImagesOrFiles, TensorImages, image_shape
from lwd.stages.encode.settings import EncodeSettings
from lwd.stages.encode.small import readable, write_trained

MOST_BYTES = 2**29
"""Of images on disk, so many bytes are held in memory as pixels to train on: 2 730 images of 256 pixels."""


def train_texture(
    settings: EncodeSettings,
    seed: int,
    folder: Path,
    train: ImagesOrFiles,
    network: SmallVAE,
    processes: Processes,
    leave: Callable[[], bool],
) -> None:
    """Train a VAE like ``network`` and write it; ``leave`` as in `write_trained`. Raises UserError where no image can
    be read."""
    show, steps = processes.compute.progress, settings.vae_steps
    with seeded(Stream.INITIALISE, seed):
        vae = SmallVAE(network.channels, network.factor, network.image_channels).to(processes.device)
    images = _pixels(train, settings, show)

    def learn(pause: Pause) -> bool:
        with progress_bar("texture encoder", steps, show=show) as advance:
            own = integer(Stream.ENCODER, seed, 2)
            return train_vae(
                vae, images, steps=steps, kl_weight=settings.vae_kl, seed=own, progress=advance, pause=pause
            )

    write_trained(vae, folder / TEXTURE, learn, leave)


def texture_facts(
    encoder: TextureEncoder, settings: EncodeSettings, images: Mapping[Split, ImagesOrFiles]
) -> dict[str, Any]:
    """For the manifest: what rebuilds a VAE that was trained on the spot, and how well held-out images come back, or
    training images where none are held out; of a pretrained autoencoder its class, sizes, scale and shift."""
    if isinstance(encoder, Autoencoder):
        return encoder.facts()
    if not isinstance(encoder, SmallVAE):
        return {}
    split: Split = "heldout" if "heldout" in images else "train"
    pixels = _pixels(images[split], settings, False)
    found = reconstruction(encoder, pixels)
    numbers = {"rmse": found.rmse, "psnr": found.psnr if math.isfinite(found.psnr) else None, "kl": found.kl}
    sizes = {"channels": encoder.channels, "image_channels": encoder.image_channels}
    return {**sizes, "reconstruction": {"split": split, "images": len(pixels), **numbers}}


def _pixels(images: ImagesOrFiles, settings: EncodeSettings, show: bool) -> Tensor:
    """Images (N, c, H, W) uint8: all in memory, or of those on disk as many as `MOST_BYTES` hold."""
    if isinstance(images, TensorImages):
        return to_uint8(images.images)
    most = min(settings.encoder_images, max(1, MOST_BYTES // math.prod(image_shape(images))))
    parts = [batch for batch, _ in readable(images, settings, most, show)]
    if not parts:
        raise UserError("encode: none of the images can be read; no VAE can be trained on them")
    return torch.cat(parts)
