"""The Fréchet distance between Gaussians fitted to features (Heusel et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_stats(features: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, D) -> mean (D,) and covariance (D, D) with divisor N - 1, in float64.

    Raises ValueError for fewer than two rows.
    """
    if len(features) < 2:
        raise ValueError(f"a covariance needs at least 2 samples, got {len(features)}")
    x = features.double()
    mean = x.mean(0)
    centred = x - mean
    return mean, centred.T @ centred / (len(x) - 1)


def frechet_distance(mu1: Tensor, sigma1: Tensor, mu2: Tensor, sigma2: Tensor) -> float:
    """|mu1 - mu2|^2 + Tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)), in float64; means (D,), covariances (D, D).

    With sigma1 = F F^T the trace of the root is the sum of the square roots of the eigenvalues of the symmetric
    F^T sigma2 F, so that nothing becomes complex or NaN for singular covariances. Accepts arrays too. Raises ValueError
    for shapes that do not match or entries that are not finite.
    """
    mu1, sigma1, mu2, sigma2 = (torch.as_tensor(x, dtype=torch.float64) for x in (mu1, sigma1, mu2, sigma2))
    size = len(mu1)
    if mu2.shape != (size,) or sigma1.shape != (size, size) or sigma2.shape != (size, size):
        shapes = [tuple(x.shape) for x in (mu1, sigma1, mu2, sigma2)]
        raise ValueError(f"statistics of different widths: mu1, sigma1, mu2, sigma2 have shapes {shapes}")
    if not all(bool(torch.isfinite(x).all()) for x in (mu1, sigma1, mu2, sigma2)):
        raise ValueError("statistics are not finite")
    values, vectors = torch.linalg.eigh(sigma1)
    factor = vectors * values.clamp(min=0).sqrt()
    root_trace = torch.linalg.eigvalsh(factor.T @ sigma2 @ factor).clamp(min=0).sqrt().sum()
    distance = (mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace() - 2 * root_trace
    return float(distance.clamp(min=0))
