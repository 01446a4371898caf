"""The Inception Score (Salimans et al. 2016), and what it owes to the order of the images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lwd.runtime.seeding import Stream, integer


def inception_score(logits: Tensor, split_size: int = 5000) -> float:
    """The Inception Score: exp of the mean KL divergence of each image's classes from all images', averaged over
    splits.

    ``logits`` (N, classes); splits follow each other, the last may be shorter, as ADM's evaluator has it. It takes
    logits without bias. In float64, and a class of probability 0 adds nothing (ADM's formula gives NaN). Between 1 and
    the number of classes. Raises ValueError for another shape, no rows, and values that are not finite.
    """
    _check(logits, split_size)
    return float(torch.stack([_score(part) for part in torch.split(logits, split_size)]).mean())


class RandomOrder(NamedTuple):
    """The score over random orders of the same images, with splits of the same sizes."""

    mean: float
    deviation: float


def score_in_random_order(logits: Tensor, split_size: int = 5000, seed: int = 0, orders: int = 8) -> RandomOrder:
    """What `inception_score` would be had the images come in a random order: over so many of them, from the seed.

    It is the images' own order that makes a score lower than that, where they come class by class. Raises ValueError
    as `inception_score`, and for fewer than two orders.
    """
    _check(logits, split_size)
    if orders < 2:
        raise ValueError(f"orders must be at least 2, got {orders}")
    generator = torch.Generator().manual_seed(integer(Stream.EVALUATE, seed))
    splits = torch.arange(len(logits)) // split_size
    of = torch.stack([splits[torch.randperm(len(logits), generator=generator)] for _ in range(orders)])  # (orders, N)
    of = (of + torch.arange(orders)[:, None] * (int(splits[-1]) + 1)).to(logits.device)
    total = torch.zeros(int(of.max()) + 1, logits.shape[1], dtype=torch.float64, device=logits.device)
    negative_entropy = torch.zeros(len(total), dtype=torch.float64, device=logits.device)
    for rows, part in zip(torch.split(of, _ROWS, dim=1), torch.split(logits, _ROWS), strict=True):
        p = part.double().softmax(1)
        each = torch.xlogy(p, p).sum(1)
        for own in rows:
            total.index_add_(0, own, p)
            negative_entropy.index_add_(0, own, each)
    counts = torch.bincount(of.flatten()).double()
    mean = total / counts[:, None]
    scores = (negative_entropy / counts - torch.xlogy(mean, mean).sum(1)).exp().view(orders, -1).mean(1)
    return RandomOrder(float(scores.mean()), float(scores.std()))


_ROWS = 4096
"""Images looked at together."""


def _check(logits: Tensor, split_size: int) -> None:
    if logits.ndim != 2 or 0 in logits.shape:
        raise ValueError(f"logits must have shape (N, classes), got {tuple(logits.shape)}")
    if split_size < 1:
        raise ValueError(f"split_size must be at least 1, got {split_size}")
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("logits are not finite")


def _score(logits: Tensor) -> Tensor:
    log_p = logits.double().log_softmax(1)
    # The mean in logarithms, so that a class that underflows to 0 stays comparable with itself.
    log_mean = log_p.logsumexp(0) - torch.tensor(len(log_p), dtype=torch.float64).log()
    return (log_p.exp() * (log_p - log_mean)).sum(1).mean().exp()
