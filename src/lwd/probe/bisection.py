"""Which lambdas to probe next: pure functions of which of those tried were stable, so that a search can be replayed.

The stable lambdas are taken to be an interval. Below it curves collapse for want of a kinetic term (Section 4.2); above
it they do where that term trains the denoiser too, which shrinks v where t' is large (`kinetic_trains: both`). What has
collapsed above every stable lambda is that far end; a lambda counts as stable where no stronger one below the far end
has collapsed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

DIGITS = 3
"""Significant digits of a lambda that the search makes up."""
WIDEN = 4.0
"""By how much the range grows at a time, where both of its ends say the same."""


class Search(Protocol):
    """A way to find the weakest stable lambda."""

    def next(self, stable: Mapping[float, bool], count: int) -> list[float]:
        """Up to about ``count`` lambdas to probe side by side, given which were stable so far; empty: done."""


def weakest_stable(stable: Mapping[float, bool]) -> float | None:
    """The weakest lambda above every collapsed one but those of the far end.

    None where all have collapsed, and where the only collapsed ones are above all stable ones: until a weaker one has
    collapsed, too, nothing says that they are the far end.
    """
    end = max((weight for weight, is_stable in stable.items() if is_stable), default=-math.inf)
    near = max((weight for weight, is_stable in stable.items() if not is_stable and weight < end), default=None)
    if near is None and not all(stable.values()):
        return None
    return min((w for w, is_stable in stable.items() if is_stable and (near is None or w > near)), default=None)


@dataclass(frozen=True)
class Listed:
    """Every lambda of a list, at once."""

    weights: tuple[float, ...]

    def next(self, stable: Mapping[float, bool], count: int) -> list[float]:
        """The lambdas of the list that were not tried yet, whatever ``count`` is."""
        return [weight for weight in self.weights if weight not in stable]


@dataclass(frozen=True)
class Bisection:
    """Bisection on a fixed grid, even in log lambda, whose neighbours differ by at most the ratio ``resolution``.

    The grid has ``low`` and ``high`` on it and goes on beyond them. Where both are stable, or both have collapsed, the
    range is first widened towards the other side, fourfold at a time and at most ``expansions`` times; where all of
    that has collapsed, or only what is above a stable one, it goes on in between or below. The grid does not depend
    on ``count``; so, where the stable lambdas are an interval, neither does the lambda that is found.
    """

    low: float
    high: float
    resolution: float = 1.25
    expansions: int = 3

    @property
    def cells(self) -> int:
        """The number of steps of the grid between ``low`` and ``high``."""
        return max(1, math.ceil(math.log(self.high / self.low) / math.log(self.resolution) - 1e-9))

    def weight(self, place: int) -> float:
        """The lambda at a place of the grid: 0 is ``low``, ``cells`` is ``high``."""
        exact = self.low * (self.high / self.low) ** (place / self.cells)
        return float(f"{exact:.{DIGITS}g}")

    def next(self, stable: Mapping[float, bool], count: int) -> list[float]:
        """Try the ends (and with more than two processes what lies between), then beyond one end, or in between."""
        tried = {place: stable[self.weight(place)] for place in self._places() if self.weight(place) in stable}
        if 0 not in tried or self.cells not in tried:
            ends = {0, self.cells, *_between(0, self.cells, count - 2)} - set(tried)
            return [self.weight(place) for place in sorted(ends)]
        chosen = weakest_stable(stable)
        if chosen is None:  # above, then where the near end may be if what collapsed is the far one
            other = self._below() if any(tried.values()) else _between(0, self.cells, 3)
            beyond = [*self._above(), *other]
            return [self.weight(place) for place in beyond if place not in tried][:count]
        steady = next(place for place in tried if self.weight(place) == chosen)
        collapsed = max((place for place, is_stable in tried.items() if not is_stable and place < steady), default=None)
        if collapsed is not None:
            return [self.weight(place) for place in _between(collapsed, steady, count)]
        return [self.weight(place) for place in self._below() if place not in tried][:count]

    def _widening(self) -> list[int]:
        stride = max(1, round(math.log(WIDEN) * self.cells / math.log(self.high / self.low)))
        return [stride * time for time in range(1, self.expansions + 1)]

    def _below(self) -> list[int]:
        return [-distance for distance in self._widening()]

    def _above(self) -> list[int]:
        return [self.cells + distance for distance in self._widening()]

    def _places(self) -> range:
        """Every place that a search may come to."""
        return range(min([0, *self._below()]), max([self.cells, *self._above()]) + 1)


def _between(first: int, last: int, count: int) -> list[int]:
    """Up to ``count`` whole numbers strictly between ``first`` and ``last``, evenly spread."""
    spread = {first + round(i * (last - first) / (count + 1)) for i in range(1, count + 1)}
    return sorted(spread - {first, last})
