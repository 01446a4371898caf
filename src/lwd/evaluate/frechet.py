"""The Fréchet distance between Gaussians fitted to features (Heusel et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from lwd.evaluate.moments import Moments


def gaussian_stats(features: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, D) -> mean (D,) and covariance (D, D) with divisor N - 1, in float64.

    Raises ValueError for fewer than two rows, and for values that are not finite.
    """
    if features.ndim != 2:
        raise ValueError(f"features must have shape (N, D), got {tuple(features.shape)}")
    moments = Moments(features.shape[1], features.device).add(features)
    return moments.mean, moments.covariance()


def frechet_distance(mu1: Tensor, sigma1: Tensor, mu2: Tensor, sigma2: Tensor) -> float:
    """|mu1 - mu2|^2 + Tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)), in float64; means (D,), covariances (D, D).

    No square root of a product is taken, so that nothing becomes complex or NaN: see `_root_trace`. Accepts arrays too.
    Computes where sigma1 lies. Raises ValueError for shapes that do not match or entries that are not finite.
    """
    mu1, sigma1, mu2, sigma2 = (torch.as_tensor(x, dtype=torch.float64) for x in (mu1, sigma1, mu2, sigma2))
    size = len(mu1)
    if mu2.shape != (size,) or sigma1.shape != (size, size) or sigma2.shape != (size, size):
        shapes = [tuple(x.shape) for x in (mu1, sigma1, mu2, sigma2)]
        raise ValueError(f"statistics of different widths: mu1, sigma1, mu2, sigma2 have shapes {shapes}")
    if not all(bool(torch.isfinite(x).all()) for x in (mu1, sigma1, mu2, sigma2)):
        raise ValueError("statistics are not finite")
    mu1, mu2, sigma2 = (x.to(sigma1.device) for x in (mu1, mu2, sigma2))
    distance = (mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace() - 2 * _root_trace(sigma1, sigma2)
    return float(distance.clamp(min=0))


def _root_trace(sigma1: Tensor, sigma2: Tensor) -> Tensor:
    """Tr (sigma1 sigma2)^(1/2) for covariances (D, D).

    With sigma1 = F1 F1^T it is the sum of the square roots of the eigenvalues of the symmetric F1^T sigma2 F1. Where
    both are positive definite F1 is the Cholesky factor, the fastest route. Where one is singular (fewer samples than
    features, features that are always 0) those eigenvalues hold zeros that rounding turns into 1e-16 and the root into
    1e-8, a thousand times over; then the singular values of F1^T F2 are taken, which are these roots and have rounding
    errors of 1e-16 themselves, with factors of as many columns as the rank.
    """
    factor1, definite1 = _factor(sigma1)
    factor2, definite2 = _factor(sigma2)
    roots: Tensor
    if definite1 and definite2:
        roots = torch.linalg.eigvalsh(factor1.T @ sigma2 @ factor1).clamp(min=0).sqrt()
    else:
        roots = torch.linalg.svdvals(factor1.T @ factor2)
    return roots.sum()


def _factor(sigma: Tensor) -> tuple[Tensor, bool]:
    """F (D, rank) with F F^T = sigma, and whether sigma is positive definite beyond rounding."""
    noise = len(sigma) * torch.finfo(sigma.dtype).eps
    factor, failed = torch.linalg.cholesky_ex(sigma)
    pivots = factor.diagonal().square()
    if not bool(failed) and bool(pivots.min() > noise * sigma.diagonal().max()):
        return factor, True
    values, vectors = torch.linalg.eigh(sigma)
    kept = values > noise * values.abs().max()
    return vectors[:, kept] * values[kept].sqrt(), False
