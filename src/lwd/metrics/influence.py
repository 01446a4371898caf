"""What one image contributes to a metric, to first order: the influence function, of mean zero over the images.

A metric is a function of the empirical distribution; moving a small weight to one image changes it by that image's
influence (Efron 1982: the infinitesimal jackknife). A replicate of the bootstrap is then the metric plus the mean
influence of the images drawn, so that a thousand of them cost about as much as one Fréchet distance, where a thousand
distances would cost days. What is left out is of second order, (D / N)^2 for a Fréchet distance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lwd.metrics.moments import Gaussian

_ROWS = 2048


def frechet_influence(features: Tensor, gaussian: Gaussian, reference: Gaussian) -> Tensor:
    """Influence (N,) float64 of features (N, D), with these statistics, on the distance to a fixed reference.

    The gradient by the mean is 2 (mu - mu_r), by the covariance 1 - T, with T the optimal transport from one Gaussian
    to the other: T = F (F^T sigma F)^(-1/2) F^T where sigma_r = F F^T. Directions in which either set has no variance
    take no part.
    """
    device = gaussian[1].device
    mean, covariance = gaussian
    mean_r, covariance_r = (part.to(device) for part in reference)
    factor = _scaled_vectors(covariance_r, 0.5)
    middle = _scaled_vectors(factor.T @ covariance @ factor, -0.25)
    transport = factor @ middle  # its square is T
    parts = []
    for rows in torch.split(features, _ROWS):
        x = rows.to(device, torch.float64) - mean
        square = x.square().sum(1) - (x @ transport).square().sum(1)
        parts.append(2 * x @ (mean - mean_r) + square)
    influence = torch.cat(parts)
    return influence - influence.mean()


def _scaled_vectors(matrix: Tensor, power: float) -> Tensor:
    """Eigenvectors (D, rank) of a symmetric matrix, each times its eigenvalue to a power."""
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > len(values) * torch.finfo(values.dtype).eps * max(values.abs().tolist(), default=0.0)
    scaled: Tensor = vectors[:, kept] * values[kept] ** power
    return scaled


def inception_influence(logits: Tensor, split_size: int) -> Tensor:
    """Influence (N,) float64 of logits (N, classes) on the Inception Score, the mean over splits of exp(mean KL).

    Within a split of score S an image adds S (KL(p_i | mean p) - mean KL): the part by which it also moves the mean p
    is zero to first order.
    """
    splits = torch.split(logits, split_size)
    parts = []
    for split in splits:
        log_p = split.double().log_softmax(1)
        log_mean = log_p.logsumexp(0) - torch.tensor(float(len(log_p)), dtype=torch.float64).log()
        divergence = (log_p.exp() * (log_p - log_mean)).sum(1)
        share = len(logits) / (len(splits) * len(split))  # splits count alike, whatever their sizes
        parts.append(share * divergence.mean().exp() * (divergence - divergence.mean()))
    return torch.cat(parts)


def kernel_influence(reference: Tensor, samples: Tensor, anchors: Tensor, reference_anchors: Tensor) -> Tensor:
    """Influence (N,) float64 of samples on KID: 2 (E k(y, y') - E k(y, x)), with means over some rows of each set."""
    parts = []
    fake, real = samples[anchors].double(), reference[reference_anchors].double()
    for rows in torch.split(samples, _ROWS):
        y = rows.double()
        near, far = ((y @ z.T / y.shape[1] + 1) ** 3 for z in (fake, real))
        parts.append(2 * (near.mean(1) - far.mean(1)))
    influence = torch.cat(parts)
    return influence - influence.mean()
