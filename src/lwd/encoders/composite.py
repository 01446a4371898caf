"""All encoders of a composite latent together: images in, one latent per group and the REPA features out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lwd.encoders.texture import TextureEncoder


class PatchFeatures(Protocol):
    """A frozen network with features per patch: `SmallViT`, or `lwd.encoders.vision.PatchEncoder`; or `Downsample`."""

    def patch_features(self, images: Tensor) -> Tensor:
        """Images (N, c, H, W) in [-1, 1] -> features (N, D, h, w)."""


class Compressor(Protocol):
    """Features to semantic latents: `PatchPCA` or `SemVAE`; `Unchanged` of a `Downsample`."""

    def encode(self, features: Tensor) -> Tensor:
        """Features (N, D, h, w) -> latents (N, k, h, w)."""


class Encoded(NamedTuple):
    """Latents (N, C_g, h, w) by group, float32, and REPA features (N, D, h, w) or None, float16 as in the shards."""

    groups: dict[str, Tensor]
    features: Tensor | None


@dataclass(frozen=True)
class CompositeEncoder:
    """Texture and semantics of the same images; ``texture_group`` alone is decoded.

    ``repa`` may be the very network of ``semantic``, which then runs once.
    """

    texture_group: str
    texture: TextureEncoder
    semantic_group: str
    semantic: PatchFeatures
    compressor: Compressor
    repa: PatchFeatures | None

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Encoded:
        """Images (N, c, H, W) in [-1, 1], on the encoders' device."""
        features = self.semantic.patch_features(images)
        groups = {
            self.texture_group: self.texture.encode(images).float(),
            self.semantic_group: self.compressor.encode(features).float(),
        }
        if self.repa is None:
            return Encoded(groups, None)
        repa = features if self.repa is self.semantic else self.repa.patch_features(images)
        return Encoded(groups, repa.half())
