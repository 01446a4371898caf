"""The Kernel Inception Distance (Binkowski et al. 2018)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lwd.metrics.checks import check_pair
from lwd.runtime.seeding import Stream, integer

_ROWS = 2048


class KernelDistance(NamedTuple):
    """The Kernel Inception Distance: mean of its estimates, and their standard deviation over subsets (0 for one)."""

    value: float
    deviation: float


def kernel_distance(
    reference: Tensor, samples: Tensor, subsets: int | None = 100, subset_size: int = 1000, seed: int = 0
) -> KernelDistance:
    """Estimate the Kernel Inception Distance of features (M, D) and (N, D): MMD^2 with the kernel (x.y / D + 1)^3.

    Unbiased, in float64.

    With ``subsets`` as in the paper: the mean over so many pairs of random subsets (drawn without replacement, from the
    seed), no larger than either set. With None once, of all features: no randomness, N^2 work, blocks of bounded
    memory. May be negative, being unbiased. Raises ValueError for different widths, values that are not finite, fewer
    than 2 rows.
    """
    check_pair(reference, samples)
    if subsets is None:
        return KernelDistance(_mmd2(reference, samples), 0.0)
    size = min(subset_size, len(reference), len(samples))
    if subsets < 1 or size < 2:
        raise ValueError(f"needs at least 1 subset of at least 2 rows, got {subsets} of {size}")
    generator = torch.Generator().manual_seed(integer(Stream.EVALUATE, seed))
    values = []
    for _ in range(subsets):
        chosen = [torch.randperm(len(x), generator=generator)[:size] for x in (reference, samples)]
        values.append(_mmd2(reference[chosen[0].to(reference.device)], samples[chosen[1].to(samples.device)]))
    estimates = torch.tensor(values, dtype=torch.float64)
    return KernelDistance(float(estimates.mean()), float(estimates.std()) if subsets > 1 else 0.0)


def _mmd2(x: Tensor, y: Tensor) -> float:
    """Eq. 4 of the paper: the kernel's mean over pairs of different points within each set, less twice that between."""
    m, n = len(x), len(y)
    within_x = (_kernel_sum(x, x) - _kernel_trace(x)) / (m * (m - 1))
    within_y = (_kernel_sum(y, y) - _kernel_trace(y)) / (n * (n - 1))
    return float(within_x + within_y - 2 * _kernel_sum(x, y) / (m * n))


def _kernel_sum(x: Tensor, y: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for i, rows in enumerate(torch.split(x, _ROWS)):
        for j, columns in enumerate(torch.split(y, _ROWS)):
            if x is not y or j >= i:  # the kernel of a set with itself is symmetric
                block = _kernel(rows.double() @ columns.double().T, x.shape[1]).sum()
                total += block if x is not y or j == i else 2 * block
    return total


def _kernel_trace(x: Tensor) -> Tensor:
    return torch.stack(
        [_kernel(rows.double().square().sum(1), x.shape[1]).sum() for rows in torch.split(x, _ROWS)]
    ).sum()


def _kernel(products: Tensor, dim: int) -> Tensor:
    base = products / dim + 1
    return base * base * base
