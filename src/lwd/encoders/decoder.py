"""What `lwd encode` leaves for later stages: the manifest, the decoder to pixels, and the classifier for samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lwd.data.encoded import JUDGE, MANIFEST, TEXTURE, Texture, read_manifest
from lwd.encoders.small import SmallCNN
from lwd.encoders.small_vae import SMALL_VAE, SmallVAE
from lwd.encoders.texture import PixelUnshuffle, TextureEncoder
from lwd.encoders.vae import SDVAE
from lwd.errors import UserError
from lwd.groups import Layout
from lwd.runtime.checkpoint import load_module


@dataclass(frozen=True)
class Decoder:
    """From composite latents to pixels: only ``group`` is decoded."""

    group: str
    encoder: TextureEncoder

    def decode(self, latents: Tensor, layout: Layout) -> Tensor:
        """Latents (N, C, ...) on the encoders' own scale -> images (N, c, H', W') in [-1, 1]."""
        return self.encoder.decode(layout.split(latents)[self.group])


def load_decoder(folder: Path, device: torch.device | str = "cpu") -> Decoder:
    """The decoder of encoded data, on ``device`` where it is a network."""
    texture = read_manifest(folder).texture
    if texture.encoder == "identity":
        return Decoder(texture.group, PixelUnshuffle(texture.factor))
    if texture.encoder == SMALL_VAE:
        return Decoder(texture.group, _load_small_vae(folder, texture).to(device))
    return Decoder(texture.group, SDVAE.load(texture.path, device))


def _load_small_vae(folder: Path, texture: Texture) -> SmallVAE:
    if texture.channels is None or texture.image_channels is None:
        raise UserError(f"{folder / MANIFEST}: texture lacks channels or image_channels; run `lwd encode` again")
    try:
        vae = SmallVAE(texture.channels, texture.factor, texture.image_channels)
    except ValueError as error:
        raise UserError(f"{folder / MANIFEST}: texture.factor: {error}; run `lwd encode` again") from error
    load_module(vae, folder / TEXTURE)
    return vae.eval().requires_grad_(False)


def load_classifier(folder: Path) -> SmallCNN:
    """The classifier of encoded data, in evaluation mode: its pooled features measure distances between sets of images,
    and it is never used to make latents."""
    settings = read_manifest(folder).judge
    if settings is None:
        raise UserError(f"{folder}: was encoded without a judge; encode labelled images with encode.judge=true")
    judge = SmallCNN(
        settings.channels,
        settings.classes,
        image_channels=settings.image_channels,
        image_size=settings.image_size,
    )
    load_module(judge, folder / JUDGE)
    return judge.eval()
