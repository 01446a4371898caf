"""Which points lie in which balls, between two sets, in one pass over the blocks of their distances."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lwd.metrics.distances import Points, products, squared_distances

Side = Literal["rows", "columns"]
_DISTANCES = 2**22
"""Held at a time when points in doubt are decided."""
_FIRST = 8
"""Balls that are tried first: copies lie in any."""


class Reached:
    """For each point of one side: is there one of the other side within the ball that `radii` draw?

    ``radii`` (squared, float64) belong to the points of ``centres``; the answer is for those of ``answers``. ``open``
    balls leave their surface out.
    """

    def __init__(self, x: Points, y: Points, radii: Tensor, centres: Side, answers: Side, open_balls: bool) -> None:
        self._x, self._y, self._radii, self._centres, self._answers, self._open = (
            x,
            y,
            radii,
            centres,
            answers,
            open_balls,
        )
        self._low = {"rows": x.low_norms, "columns": y.low_norms}
        self._low[centres] = self._low[centres] - radii
        self._low32 = {side: low.float() for side, low in self._low.items()}
        size = len(x) if answers == "rows" else len(y)
        # The least distance minus radius of each point: between these two.
        self._least_low = torch.full((size,), torch.inf, device=radii.device)
        self._least_high = torch.full((size,), torch.inf, device=radii.device)

    def see(self, rows: slice, columns: slice, product: Tensor, scratch: Tensor) -> None:
        """Take in a block of -2 x.y."""
        own, other = (rows, columns) if self._answers == "rows" else (columns, rows)
        points, others = (self._x, self._y) if self._answers == "rows" else (self._y, self._x)
        if self._answers == "rows":
            low = torch.add(product, self._low32["columns"][columns], out=scratch).amin(1)
            low += self._low32["rows"][rows]
        else:
            low = torch.add(product, self._low32["rows"][rows, None], out=scratch).amin(0)
            low += self._low32["columns"][columns]
        high = low + 2 * points.slack * (points.norms[own] + others.norms[other].max()).float()
        torch.minimum(self._least_low[own], low, out=self._least_low[own])
        torch.minimum(self._least_high[own], high, out=self._least_high[own])

    def answer(self) -> Tensor:
        """(points,) bool, those that rounding leaves in doubt decided in float64."""
        inside = self._least_high < 0
        doubtful = ((self._least_low <= 0) & ~inside).nonzero()[:, 0]
        others = self._y if self._answers == "rows" else self._x
        for points in torch.split(doubtful, max(1, _DISTANCES // len(others))):
            inside[points] = self._decide(points)
        return inside

    def _decide(self, points: Tensor) -> Tensor:
        """(B,) bool, in float64: by the few likeliest balls first, which of copies settle it, then by all in reach."""
        ours, others = (self._x, self._y) if self._answers == "rows" else (self._y, self._x)
        across: Side = "columns" if self._answers == "rows" else "rows"
        low = -2 * (ours.centred[points] @ others.centred.T) + self._low32[across]
        low += self._low32[self._answers][points, None]
        if self._open and self._centres == self._answers:
            low[self._radii[points] <= 0] = torch.inf  # an open ball without radius holds nothing, not even copies
        inside = torch.zeros(len(points), dtype=torch.bool, device=low.device)
        best = low.topk(min(_FIRST, low.shape[1]), 1, largest=False)
        low.scatter_(1, best.indices, torch.inf)
        first, which = (best.values <= 0).nonzero(as_tuple=True)
        inside[first[self._holds(points[first], best.indices[first, which])]] = True
        low[inside] = torch.inf
        rest, across_rest = (low <= 0).nonzero(as_tuple=True)
        inside[rest[self._holds(points[rest], across_rest)]] = True
        return inside

    def _holds(self, points: Tensor, others: Tensor) -> Tensor:
        """(P,) bool for pairs of points, one of each side: do they lie within the ball that one of them draws?"""
        if not len(points):
            return points.bool()
        ours, theirs = (self._x, self._y) if self._answers == "rows" else (self._y, self._x)
        distances = squared_distances(ours, points, theirs, others)
        radii = self._radii[points if self._centres == self._answers else others]
        return distances < radii if self._open else distances <= radii


class Counted:
    """In how many open balls around x's points, with squared ``radii`` (M,), each point of y lies."""

    def __init__(self, x: Points, y: Points, radii: Tensor) -> None:
        self._x, self._y, self._radii = x, y, radii
        self._low_rows = (x.low_norms - radii).float()
        self._low_columns = y.low_norms.float()
        self.counts = torch.zeros(len(y), dtype=torch.int64, device=radii.device)

    def see(self, rows: slice, columns: slice, product: Tensor, scratch: Tensor) -> None:
        """Take in a block of -2 x.y."""
        low = torch.add(product, self._low_rows[rows, None], out=scratch)
        edge = -self._low_columns[columns]
        width = 2 * self._x.slack * (self._y.norms[columns] + self._x.norms[rows].max()).float()
        sure = low < edge - width
        self.counts[columns] += sure.sum(0)
        some = self._radii[rows, None] > 0  # an open ball without radius holds nothing, not even copies
        i, j = ((low <= edge) & ~sure & some).nonzero(as_tuple=True)
        i, j = i + rows.start, j + columns.start
        inside = squared_distances(self._x, i, self._y, j) < self._radii[i] if len(i) else i.bool()
        self.counts.index_add_(0, j, inside.long())


def see_all(x: Points, y: Points, block: int, questions: list[Reached | Counted]) -> None:
    """Show every question all blocks of distances between two sets, each computed once."""
    scratch = torch.empty(0, device=x.centred.device)
    for rows, columns, product in products(x, y, block):
        scratch.resize_(product.shape)
        for question in questions:
            question.see(rows, columns, product, scratch)
