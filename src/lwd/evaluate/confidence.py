"""How far a metric is to be trusted: bootstrap intervals, and the Fréchet distance of infinitely many samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lwd.evaluate.featureset import Gaussian
from lwd.evaluate.frechet import frechet_distance
from lwd.evaluate.moments import Moments
from lwd.runtime.seeding import Stream, integer

_ORDER, _REPLICATES = 1, 2  # steps of the seed's stream; KID has 0
_DRAWS = 2**24


class Interval(NamedTuple):
    """``low`` to ``high``, and the standard error behind them."""

    low: float
    high: float
    standard_error: float


class Extrapolation(NamedTuple):
    """Mean distances at several sample counts, and what they tend to, with its standard error."""

    counts: list[int]
    values: list[float]
    infinity: float
    standard_error: float


def bootstrap_interval(value: float, influence: Tensor, replicates: int, confidence: float, seed: int) -> Interval:
    """Where the metric lies for ``confidence`` of the draws of as many images; influence (N,) as in `influence`.

    A replicate draws N images with replacement. Percentiles of at least two replicates.
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
    tail = (1 - confidence) / 2
    low, high = torch.quantile(drawn, torch.tensor([tail, 1 - tail], dtype=drawn.dtype)).tolist()
    return Interval(value + low, value + high, float(drawn.std()))


def extrapolate(
    features: Tensor,
    reference: Gaussian,
    levels: int,
    standard_error: float,
    seed: int,
    device: torch.device,
    advance: Callable[[], None] = lambda: None,
) -> Extrapolation | None:
    """Fréchet distances of features (N, D) at N, N/2, N/4, ... samples, and the limit, linear in 1/N.

    As Chong and Forsyth (2020), FID_infinity, but for the subsets: at N/m they are the m parts of one random order,
    averaged, so that every image counts alike at every level. A chance that favours all of N then favours all levels
    alike, and hardly touches the slope. No level has fewer than two images per feature; None where that leaves one.
    ``standard_error`` is that of the distance at N; the limit's adds what the straight line leaves.
    """
    count, width = features.shape
    parts = [2**level for level in range(levels) if count // 2**level >= 2 * width]
    if len(parts) < 2:
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
    x, y = 1 / torch.tensor(counts, dtype=torch.float64), torch.tensor(values, dtype=torch.float64)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    limit = y.mean() - slope * x.mean()
    residual = 0.0
    if len(parts) > 2:
        spread = (y - limit - slope * x).square().sum() / (len(parts) - 2)
        residual = float(spread * (1 / len(parts) + x.mean() ** 2 / (x - x.mean()).square().sum()))
    return Extrapolation(counts, values, float(limit), (standard_error**2 + residual) ** 0.5)
