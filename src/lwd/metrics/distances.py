"""Squared distances between sets of features: at the speed of a float32 matrix product, decided as in float64.

|x - y|^2 = |x|^2 + |y|^2 - 2 x.y is fast, and wrong by up to a rounding slack that grows with the norms. So every
float32 distance is taken minus its slack, a lower bound; what a bound cannot decide is computed again from the
differences x - y in float64. On continuous data that is about one point in ten thousand; copies and ties are others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

EXTRA = 2
"""Candidates kept beyond the k-th neighbour, among which float64 chooses."""
_STRIPES = 16
_PAIR_NUMBERS = 2**19
"""Numbers at a time in float64: more, and the allocator asks the system for fresh pages every time."""


class Points:
    """Features (N, D) as float32 distances need them: less a common ``centre`` (D,) float64, with squared norms.

    The centre costs nothing and makes norms, and with them slacks, as small as distances.
    """

    def __init__(self, features: Tensor, centre: Tensor) -> None:
        self.features = features
        rows = max(1, _PAIR_NUMBERS // features.shape[1])
        self.centred = torch.cat([(part.double() - centre).float() for part in torch.split(features, rows)])
        """(N, D) float32."""
        self.norms = torch.cat([part.double().square().sum(1) for part in torch.split(self.centred, rows)])
        """(N,) float64."""

    def __len__(self) -> int:
        return len(self.features)

    @property
    def slack(self) -> float:
        """Relative slack: a float32 squared distance may be off by this times |x|^2 + |y|^2.

        From centring, D products and four sums.

        Rounding errors add up as a random walk; a few standard deviations of it, more than has ever been seen.
        """
        return 2 * (math.sqrt(self.features.shape[1]) + 8) * 2.0**-24

    @property
    def low_norms(self) -> Tensor:
        """Squared norms (N,) float64 less their part of the slack."""
        return self.norms * (1 - self.slack)


def squared_distances(x: Points, rows: Tensor, y: Points, columns: Tensor) -> Tensor:
    """Squared distances (P,) float64 between x's ``rows`` and y's ``columns``, both (P,), from their differences."""
    step = max(1, _PAIR_NUMBERS // x.features.shape[1])
    parts = [
        (x.features[i].double() - y.features[j].double()).square().sum(1)
        for i, j in zip(torch.split(rows, step), torch.split(columns, step), strict=True)
    ]
    return torch.cat(parts)


def products(x: Points, y: Points, block: int, symmetric: bool = False) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield -2 x.y in blocks: rows of x, columns of y, (rows, columns) float32; the upper blocks if ``symmetric``."""
    for i in range(0, len(x), block):
        rows = slice(i, i + block)
        scaled = -2 * x.centred[rows]
        for j in range(i if symmetric else 0, len(y), block):
            columns = slice(j, j + block)
            yield rows, columns, scaled @ y.centred[columns].T


def neighbour_distances(points: Points, ks: list[int], block: int) -> list[Tensor]:
    """Squared distance (N,) float64 of every point to its k-th nearest other point, for each k."""
    kept = min(max(ks) + EXTRA, len(points) - 1)
    low_norms = points.low_norms.float()
    best = torch.full((len(points), kept), torch.inf, device=low_norms.device)
    place = torch.zeros(len(points), kept, dtype=torch.int64, device=low_norms.device)
    for rows, columns, product in products(points, points, block, symmetric=True):
        if rows == columns:
            product.fill_diagonal_(torch.inf)
        else:
            _keep(best, place, columns, (product + low_norms[rows, None]).T, rows.start)
        _keep(best, place, rows, product.add_(low_norms[columns]), columns.start)
    own = torch.arange(len(points), device=place.device).repeat_interleave(kept)
    nearest = squared_distances(points, own, points, place.flatten()).view(-1, kept).sort(1).values
    reached = best[:, -1].double() + points.low_norms  # no point that was not kept is nearer than this
    return [_settle_neighbours(points, nearest, reached, k, kept == len(points) - 1) for k in ks]


def _keep(best: Tensor, place: Tensor, rows: slice, values: Tensor, offset: int) -> None:
    """The smallest of ``values`` compete with ``best``; ``place`` gets their columns + ``offset``."""
    kept = best.shape[1]
    found, where = smallest(values, min(kept, values.shape[1]))
    joined = torch.cat([best[rows], found], 1).topk(kept, 1, largest=False)
    place[rows] = torch.cat([place[rows], where + offset], 1).gather(1, joined.indices)
    best[rows] = joined.values


def smallest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` smallest of each row of (R, C), in order, and their columns.

    They lie in the ``count`` stripes of columns with the smallest minima: a fast reduction leaves a selection among
    few.
    """
    width = values.shape[1] // _STRIPES
    if width <= count or values.shape[1] % _STRIPES:
        found = values.topk(count, 1, largest=False)
        return found.values, found.indices
    stripes = torch.unflatten(values, 1, (_STRIPES, width)).amin(1).topk(count, 1, largest=False, sorted=False).indices
    columns = (stripes[:, :, None] + width * torch.arange(_STRIPES, device=values.device)).flatten(1)
    found = values.gather(1, columns).topk(count, 1, largest=False)
    return found.values, columns.gather(1, found.indices)


def _settle_neighbours(points: Points, nearest: Tensor, reached: Tensor, k: int, complete: bool) -> Tensor:
    """The k-th of ``nearest`` (N, kept), ascending; looked for again where points that were not kept may be nearer."""
    distances = nearest[:, k - 1].clone()
    if complete:
        return distances
    for row in ((distances > reached) & (distances > 0)).nonzero()[:, 0]:
        low = -2 * (points.centred @ points.centred[row]) + points.low_norms.float()
        low[row] = torch.inf
        near = (low + points.low_norms[row].float() <= distances[row]).nonzero()[:, 0]
        distances[row] = squared_distances(points, row.expand(len(near)), points, near).kthvalue(k).values
    return distances
