"""SemVAE's objective: squared error, direction and KL of reconstructed patch features."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from lwd.encoders.posterior import Posterior


class SemVAETerms(NamedTuple):
    """The weighted sum, and its terms unweighted; scalars."""

    total: Tensor
    mse: Tensor
    cosine: Tensor
    l1: Tensor
    kl: Tensor


def semvae_loss(
    reconstruction: Tensor,
    features: Tensor,
    posterior: Posterior,
    *,
    mse_weight: float = 1.0,
    cosine_weight: float = 1.0,
    l1_weight: float = 0.0,
    kl_weight: float = 1e-7,
) -> SemVAETerms:
    """Reconstruction r and features x (N, D, h, w), and the posterior of x -> the terms; total is their weighted sum.

    - mse: mean over all N D h w entries of (r - x)^2
    - cosine: mean over the N h w positions of 1 - cos(r, x), the angle taken along the D channels
    - l1: mean over all entries of |r - x|
    - kl: mean over the N images of KL(q || N(0, I)) = 1/2 sum over k, h, w of (m^2 + s^2 - 1 - log s^2)
    """
    mse = F.mse_loss(reconstruction, features)
    cosine = 1 - F.cosine_similarity(reconstruction, features, dim=1).mean()
    l1 = F.l1_loss(reconstruction, features)
    kl = posterior.kl().mean()
    total = mse_weight * mse + cosine_weight * cosine + l1_weight * l1 + kl_weight * kl
    return SemVAETerms(total, mse, cosine, l1, kl)
