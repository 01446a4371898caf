"""The texture encoders of this project's own, as a component of diffusers pipelines."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from lwd.encoders.small_vae import SMALL_VAE, SmallVAE
from lwd.encoders.texture import IDENTITY, PixelUnshuffle, TextureEncoder
from lwd.errors import UserError


class LwdVAE(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """``network``: the `SmallVAE` that `lwd encode` trains on the spot; for ``encoder`` "identity", `PixelUnshuffle`.

    Saved and loaded as diffusers does; the other arguments are the network's. Raises UserError for another encoder.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, latent_channels: int, factor: int, image_channels: int = 3, encoder: str = SMALL_VAE) -> None:
        super().__init__()
        if encoder not in (SMALL_VAE, IDENTITY):
            raise UserError(f"vae: unknown encoder {encoder!r}; known: {SMALL_VAE}, {IDENTITY}")
        self.network: TextureEncoder
        if encoder == SMALL_VAE:
            self.network = SmallVAE(latent_channels, factor, image_channels)
        else:
            self.network = PixelUnshuffle(factor)
            self.register_buffer("weightless", torch.empty(0))  # a device and a dtype, which diffusers looks for

    @classmethod
    def from_encoder(cls, encoder: TextureEncoder, channels: int) -> LwdVAE:
        """Around ``encoder`` itself, which is not copied; ``channels`` of its latents. Raises UserError for others."""
        if isinstance(encoder, SmallVAE):
            with torch.device("meta"):
                adapter: LwdVAE = cls(encoder.channels, encoder.factor, encoder.image_channels)
            adapter.network = encoder
        elif isinstance(encoder, PixelUnshuffle):
            adapter = cls(channels, encoder.factor, channels // encoder.factor**2, IDENTITY)
        else:
            raise UserError(f"vae: a pipeline cannot hold a {type(encoder).__name__}")
        adapter.eval()
        return adapter

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, C, h, w) on the encoder's own scale -> images (N, 3, f h, f w), grey ones too, not clipped."""
        images = self.network.decode(latents.to(self.device, self.dtype)).float()
        return images.expand(-1, 3, -1, -1)
