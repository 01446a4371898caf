"""All encoders of a composite latent together: images in, one latent per group and the REPA features out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lwd.encoders.texture import TextureEncoder


class PatchFeatures(Protocol):
    """A frozen network with features per patch: `SmallViT` or one of `lwd.encoders.vision`; `Downsample`, `Edges`."""

    def patch_features(self, images: Tensor) -> Tensor:
        """Images (N, c, H, W) in [-1, 1] -> features (N, D, h, w)."""


class Compressor(Protocol):
    """Features to semantic latents: `PatchPCA` or `SemVAE`; `Unchanged` where there is no network."""

    def encode(self, features: Tensor) -> Tensor:
        """Features (N, D, h, w) -> latents (N, k, h, w)."""


class Encoded(NamedTuple):
    """Latents (N, C_g, h, w) by group, float32, and REPA features (N, D, h, w) or None, float16 as in the shards."""

    groups: dict[str, Tensor]
    features: Tensor | None


class Described(NamedTuple):
    """How a group is made that is not decoded: the features of a network, compressed."""

    network: PatchFeatures
    compressor: Compressor


@dataclass(frozen=True)
class CompositeEncoder:
    """Texture and the other groups, by name, of the same images; ``texture_group`` alone is decoded.

    ``repa`` may be the very network of one of ``others``, which then runs once.
    """

    texture_group: str
    texture: TextureEncoder
    others: Mapping[str, Described]
    repa: PatchFeatures | None

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Encoded:
        """Images (N, c, H, W) in [-1, 1], on the encoders' device."""
        groups = {self.texture_group: self.texture.encode(images).float()}
        repa: Tensor | None = None
        for name, (network, compressor) in self.others.items():
            features = network.patch_features(images)
            groups[name] = compressor.encode(features).float()
            repa = features if network is self.repa else repa
        if repa is None and self.repa is not None:
            repa = self.repa.patch_features(images)
        return Encoded(groups, None if repa is None else repa.half())
