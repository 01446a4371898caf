"""The Gaussian that a VAE's encoder gives for latents (Kingma and Welling, arXiv 1312.6114)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LOGVAR_RANGE = (-30.0, 20.0)
"""To which log variances are clamped."""


class Posterior(NamedTuple):
    """q(latent | x) = N(mean, exp(logvar)), each (N, k, h, w), independent in all entries."""

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std * noise, with standard normal noise (N, k, h, w)."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> Tensor:
        """KL(q || N(0, I)) of each image (N,), in nats: 1/2 sum over channels and positions of m^2 + s^2 - 1 - log s^2.

        A sum, as in the release: the mean over an image's k h w entries would make a weight of 1e-7 mean k h w times
        less.
        """
        terms = self.mean.square() + self.logvar.exp() - 1 - self.logvar
        return 0.5 * terms.flatten(1).sum(1)
