"""How far a metric is to be trusted: bootstrap intervals, and the Fréchet distance of infinitely many samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lwd.metrics.frechet import frechet_distance
from lwd.metrics.moments import Gaussian, Moments
from lwd.runtime.seeding import Stream, integer

_ORDER, _REPLICATES = 1, 2  # steps of the seed's stream; KID has 0
_DRAWS = 2**24


class Interval(NamedTuple):
    """A confidence interval from ``low`` to ``high``, and the standard error behind it."""

    low: float
    high: float
    standard_error: float


class Extrapolation(NamedTuple):
    """Mean distances at several sample counts, and their limit for infinitely many, with its standard error."""

    counts: list[int]
    values: list[float]
    infinity: float
    standard_error: float | None


def bootstrap_interval(
    value: float, influence: Tensor, replicates: int, confidence: float, seed: int, extra: float = 0.0
) -> Interval:
    """Bootstrap a metric's confidence interval from the images' influence (N,) on it (see `influence`).

    A replicate draws N images with replacement, and adds what else is random, of standard deviation ``extra``.
    Percentiles of at least two replicates.
    """
    if replicates < 2:
        raise ValueError(f"needs at least 2 replicates, got {replicates}")
    generator = torch.Generator().manual_seed(integer(Stream.EVALUATE, seed, _REPLICATES))
    influence, count = influence.cpu(), len(influence)
    rounds = max(1, _DRAWS // count)
    means = [
        influence[torch.randint(count, (min(rounds, replicates - done), count), generator=generator)].mean(1)
        for done in range(0, replicates, rounds)
    ]
    drawn = torch.cat(means)
    drawn = drawn + extra * torch.randn(len(drawn), generator=generator, dtype=drawn.dtype)
    tail = (1 - confidence) / 2
    low, high = torch.quantile(drawn, torch.tensor([tail, 1 - tail], dtype=drawn.dtype)).tolist()
    return Interval(value + low, value + high, float(drawn.std()))


def extrapolate(
    features: Tensor,
    reference: Gaussian,
    levels: int,
    standard_error: float | None,
    seed: int,
    device: torch.device,
    advance: Callable[[], None] = lambda: None,
) -> Extrapolation | None:
    """Fréchet distances of features (N, D) at N, N/2, N/4, ... samples, and the limit of a + b/N + c/N^2.

    After Chong and Forsyth (2020), FID_infinity, but for two things. Their straight line falls below the truth where
    samples are not many times the features, by up to a tenth of the bias that it is to remove; the square makes up for
    it. And the subsets are, at N/m, the m parts of one random order, averaged, so that every image counts alike at
    every level: a chance that favours all of N favours all levels alike, and hardly touches the slope. No level has
    fewer than two images per feature; None where that leaves fewer than three.

    ``standard_error`` is that of the distance at N (None: unknown, and so is the limit's). The limit's adds by how much
    it differs from that of a straight line through the two largest counts.
    """
    count, width = features.shape
    parts = [2**level for level in range(levels) if count // 2**level >= 2 * width]
    if len(parts) < 3:
        return None
    generator = torch.Generator().manual_seed(integer(Stream.EVALUATE, seed, _ORDER))
    order = torch.randperm(count, generator=generator)
    counts, values = [], []
    for m in parts:
        size = count // m
        distances = []
        for part in range(m):
            moments = Moments(width, device)
            for rows in torch.split(order[part * size : (part + 1) * size], 2048):
                moments.add(features[rows.to(features.device)])
            distances.append(frechet_distance(moments.mean, moments.covariance(), *reference))
            advance()
        counts.append(size)
        values.append(sum(distances) / m)
    x, y = counts[0] / torch.tensor(counts, dtype=torch.float64), torch.tensor(values, dtype=torch.float64)
    limit = _limit(x, y, 2)
    doubt = limit - _limit(x[:2], y[:2], 1)
    error = None if standard_error is None else (standard_error**2 + doubt**2) ** 0.5
    return Extrapolation(counts, values, limit, error)


def _limit(x: Tensor, y: Tensor, degree: int) -> float:
    """At 0, of the polynomial that fits y (points,) best."""
    powers = x[:, None] ** torch.arange(degree + 1)
    return float(torch.linalg.lstsq(powers, y[:, None]).solution[0, 0])
