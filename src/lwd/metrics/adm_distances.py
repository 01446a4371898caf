"""Precision and recall from float16 distances, as ADM's evaluator computes them (guided-diffusion, evaluator.py)."""

from __future__ import annotations

import torch
from torch import Tensor

from lwd.metrics.checks import full_float32

_BLOCK = 10_000
"""ADM's, which decides where it falls back to float32."""


def adm_manifold(reference: Tensor, samples: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the samples (N,) in the reference's manifold, and the reference images (M,) in the samples': bool.

    Features, squared norms, products (summed in float32, as GPUs do) and sums are rounded to float16; a block of 10 000
    x 10 000 in which one distance overflows is taken in float32. A radius is the (k + 1)-th smallest distance of a row
    that includes the point itself, at whatever rounding made of 0.
    """
    with full_float32(reference.device):
        reference, samples = reference.float(), samples.float()
        real_radii, fake_radii = _radii(reference, k), _radii(samples, k)
        precise = torch.zeros(len(samples), dtype=torch.bool, device=samples.device)
        recalled = torch.zeros(len(reference), dtype=torch.bool, device=samples.device)
        for i in range(0, len(reference), _BLOCK):
            for j in range(0, len(samples), _BLOCK):
                rows, columns = slice(i, i + _BLOCK), slice(j, j + _BLOCK)
                distances = _distances(reference[rows], samples[columns])
                precise[columns] |= (distances <= real_radii[rows, None]).any(0)
                recalled[rows] |= (distances <= fake_radii[columns]).any(1)
        return precise, recalled


def _radii(x: Tensor, k: int) -> Tensor:
    radii = []
    for rows in torch.split(x, _BLOCK):
        nearest = torch.cat(
            [
                _distances(rows, columns).topk(min(k + 1, len(columns)), 1, largest=False).values
                for columns in torch.split(x, _BLOCK)
            ],
            1,
        )
        radii.append(nearest.kthvalue(k + 1, 1).values)
    return torch.cat(radii)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    half = _sum(x.half(), y.half())
    return half.float() if bool(torch.isfinite(half).all()) else _sum(x, y)


def _sum(x: Tensor, y: Tensor) -> Tensor:
    """max(|x|^2 - 2 x.y + |y|^2, 0), every intermediate result rounded to the arguments' type."""
    kind = x.dtype
    norm_x, norm_y = (z.square().float().sum(1).to(kind) for z in (x, y))
    product = (x.float() @ y.float().T).to(kind)
    return (norm_x[:, None] - 2 * product + norm_y).clamp_(min=0)
