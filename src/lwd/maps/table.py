"""What a map holds, and its values between the points of its grid.

A map is measured over a grid of two local times, the leader's and one other group's, with all remaining groups at the
leader's time: one pair for each group but the leader. Its axes are log-SNR, lambda = 2 log(t / (1 - t)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lwd.groups import Layout


@dataclass(frozen=True)
class LogSNR:
    """A grid of ``points`` equal steps in log-SNR from -``largest`` to ``largest``."""

    points: int = 13
    largest: float = 8.0

    def __post_init__(self) -> None:
        if self.points < 3 or not 0 < self.largest <= 40:
            raise ValueError(
                f"a map needs at least 3 points and a log-SNR in (0, 40], got {self.points}, {self.largest}"
            )

    @cached_property
    def values(self) -> Tensor:
        """The log-SNR at the points (K,) float64."""
        return torch.linspace(-self.largest, self.largest, self.points, dtype=torch.float64)

    @cached_property
    def times(self) -> Tensor:
        """The local times at the points (K,) float64."""
        return torch.sigmoid(self.values / 2)

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The first and the last local time."""
        return float(self.times[0]), float(self.times[-1])


def log_snr(t: Tensor) -> Tensor:
    """lambda = 2 log(t / (1 - t)), of any shape; infinite at both ends."""
    log_odds: Tensor = torch.logit(t.clamp(0, 1))  # in float64 a curve's end is 1 to an ulp only
    return 2 * log_odds


@dataclass(frozen=True)
class Map:
    """Of each image, its mean over noises: ``loss`` l_g and ``speed`` |v_g|^2, group means as in Eq. 22.

    Both (P, N, K, K, G): pairs (`Map.followers`), images, the leader's point, the other group's point, groups.
    ``positions``: the product of a latent's axes beyond (C, ...), 1 where there are none.
    """

    layout: Layout
    leader: str
    grid: LogSNR
    positions: int
    loss: Tensor
    speed: Tensor

    @property
    def followers(self) -> tuple[str, ...]:
        """The groups that the pairs are of, beside the leader."""
        return tuple(name for name in self.layout.names if name != self.leader)

    @property
    def images(self) -> int:
        """How many images were measured."""
        return self.loss.shape[1]

    def index(self, name: str) -> int:
        """The place of a group in the layout."""
        return self.layout.names.index(name)

    def table(self) -> Table:
        """The means over the images."""
        return Table(
            self.layout, self.leader, self.grid, self.positions, self.loss.double().mean(1), self.speed.double().mean(1)
        )

    def standard_error(self) -> Tensor:
        """Of the mean loss, over images: (P, K, K, G)."""
        return self.loss.double().std(1) / math.sqrt(self.images)


@dataclass(frozen=True)
class Table:
    """l_g and k_g = E|v_g|^2 (P, K, K, G) as functions of the local times, bilinear in log-SNR.

    Beyond the grid's ends the nearest point counts. With more than one pair the values are those with every group at
    the leader's time, plus for each other group what moving it alone changes: exact for two groups, first-order beyond.
    """

    layout: Layout
    leader: str
    grid: LogSNR
    positions: int
    loss: Tensor
    speed: Tensor

    def __call__(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Local times (B, G) -> l_g and k_g, (B, G) float64 each; differentiable in the times."""
        lead = self.layout.names.index(self.leader)
        others = [g for g in range(len(self.layout.names)) if g != lead]
        place = self._place(times)
        both = self._both.to(times.device)
        total = _bilinear(both[0], place[:, lead], place[:, others[0]])
        for pair, g in enumerate(others[1:], start=1):
            moved = _bilinear(both[pair], place[:, lead], place[:, g])
            total = total + moved - _bilinear(both[pair], place[:, lead], place[:, lead])
        values: Tensor = total.view(len(times), -1, 2).clamp_min(0)
        return values[..., 0], values[..., 1]

    @cached_property
    def _both(self) -> Tensor:
        """Loss and speed side by side (P, K, K, 2 G)."""
        return torch.stack([self.loss, self.speed], dim=-1).flatten(-2)

    def _place(self, times: Tensor) -> Tensor:
        """Where the times lie on the grid, in steps from its first point: (B, G) float64 in [0, K - 1]."""
        low, high = self.grid.ends
        step = 2 * self.grid.largest / (self.grid.points - 1)
        place = (log_snr(times.double().clamp(low, high)) + self.grid.largest) / step
        return place.clamp(0, self.grid.points - 1)


def _bilinear(values: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """values (K, K, n) at fractional rows and columns (B,) -> (B, n)."""
    last = len(values) - 2
    i, j = row.detach().long().clamp(0, last), column.detach().long().clamp(0, last)
    a, b = (row - i)[:, None], (column - j)[:, None]
    upper: Tensor = (1 - b) * values[i, j] + b * values[i, j + 1]
    lower: Tensor = (1 - b) * values[i + 1, j] + b * values[i + 1, j + 1]
    return (1 - a) * upper + a * lower
