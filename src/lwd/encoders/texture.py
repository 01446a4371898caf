"""Texture encoders: the representation that is decoded back to pixels."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

IDENTITY = "identity"
"""The name of `PixelUnshuffle` in configs and manifests."""


class TextureEncoder(Protocol):
    """Images to latents and back. `PixelUnshuffle` is exact; an image VAE is close."""

    factor: int
    """Pixels of an image for each position of a latent, along either side."""

    def encode(self, images: Tensor) -> Tensor:
        """Images (N, c, H, W) in [-1, 1] -> latents (N, C, h, w) on the encoder's own scale."""

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, C, h, w) on the encoder's own scale -> images (N, c, H, W)."""


class PixelUnshuffle:
    """Each ``factor`` x ``factor`` patch of pixels becomes one position with c factor^2 channels; nothing is lost.

    Channel k factor^2 + i factor + j holds pixel (i, j) of the patch in the image's channel k (Shi et al.,
    arXiv 1609.05158, backwards). Raises ValueError for a factor below 1.
    """

    def __init__(self, factor: int = 2) -> None:
        if factor < 1:
            raise ValueError(f"factor must be at least 1, got {factor}")
        self.factor = factor

    def encode(self, images: Tensor) -> Tensor:
        """Images (N, c, H, W) -> (N, c f^2, H/f, W/f). Raises ValueError where f divides H or W not."""
        if images.shape[-2] % self.factor or images.shape[-1] % self.factor:
            raise ValueError(f"factor {self.factor} does not divide images of shape {tuple(images.shape)}")
        return F.pixel_unshuffle(images, self.factor)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, c f^2, h, w) -> (N, c, h f, w f), bit for bit. Raises ValueError where f^2 divides C not."""
        if latents.shape[1] % self.factor**2:
            raise ValueError(f"factor {self.factor} does not fit latents of shape {tuple(latents.shape)}")
        return F.pixel_shuffle(latents, self.factor)
