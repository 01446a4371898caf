"""The small VAE that `lwd encode` trains on the spot, as a component of diffusers pipelines."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from lwd.encoders.small_vae import SmallVAE


class LwdVAE(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """``network``, a `SmallVAE`, saved and loaded as diffusers does; the arguments are the network's."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, latent_channels: int, factor: int, image_channels: int = 3) -> None:
        super().__init__()
        self.network = SmallVAE(latent_channels, factor, image_channels)

    @classmethod
    def from_network(cls, network: SmallVAE) -> LwdVAE:
        """Around ``network`` itself, which is not copied."""
        with torch.device("meta"):
            adapter: LwdVAE = cls(network.channels, network.factor, network.image_channels)
        adapter.network = network
        adapter.eval()
        return adapter

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, C, h, w) on the encoder's own scale -> images (N, 3, f h, f w), grey ones too, not clipped."""
        images = self.network.decode(latents.to(self.device, self.dtype)).float()
        return images.expand(-1, 3, -1, -1)
