"""Grids for the fixed-step solvers: a warp of [0, 1] onto itself, cut at the schedule's kinks.

A warp maps the share of steps done, s, to global time tau = warp(s), increasing, warp(0) = 0 and warp(1) = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.schedules import Schedule

Warp = Callable[[Tensor], Tensor]
"""s, float64 of any shape on the CPU -> tau, of the same shape."""

_POINTS = 2048
"""Chords per piece for the arc length; the error of its inverse is of order 1 / _POINTS^2, below any step's."""
_BISECTIONS = 60


@dataclass(frozen=True)
class Shift:
    """SFD's and LightningDiT's timestep shift, with noise at 0: tau = shift s / (1 + (shift - 1) s).

    Below 1, steps crowd at the noise, above 1 at the data; SD3's shift a, stated for times with noise at 1, is 1 / a.
    """

    shift: float

    def __post_init__(self) -> None:
        if not 0 < self.shift < float("inf"):
            raise UserError(f"grid: the timestep shift must be positive, got {self.shift}")

    def __call__(self, s: Tensor) -> Tensor:
        """Global time at the share s of the steps."""
        return self.shift * s / (self.shift * s + (1 - s))  # exactly 1 at 1


class ArcLength:
    """A grid of equal steps along the curve tau -> (t_g(tau))_g: short where the local times move fast."""

    def __init__(self, schedule: Schedule) -> None:
        pieces = list(pairwise([0.0, *schedule.kinks, 1.0]))
        taus = torch.cat([torch.linspace(a, b, _POINTS + 1, dtype=torch.float64)[:-1] for a, b in pieces])
        self.taus = torch.cat([taus, torch.ones(1, dtype=torch.float64)])
        device = next(schedule.parameters(), torch.zeros(())).device
        with torch.no_grad():
            times = schedule(self.taus.to(device))[0].cpu()
        lengths = torch.cat([torch.zeros(1, dtype=torch.float64), times.diff(dim=0).norm(dim=1).cumsum(0)])
        self.lengths = lengths / lengths[-1]

    def __call__(self, s: Tensor) -> Tensor:
        """Global time at the share s of the steps."""
        i = torch.searchsorted(self.lengths, s.contiguous(), right=True).clamp(1, len(self.taus) - 1)
        part = (s - self.lengths[i - 1]) / (self.lengths[i] - self.lengths[i - 1])
        return torch.lerp(self.taus[i - 1], self.taus[i], part.nan_to_num(1.0).clamp(0, 1))


def uniform(s: Tensor) -> Tensor:
    """The grid of equal steps, tau = s."""
    return s


def fixed_grid(warp: Warp, steps: int, kinks: Sequence[float], start: float = 0.0, end: float = 1.0) -> list[Tensor]:
    """Share ``steps`` out to the pieces between kinks: for each the global times (n + 1,) of its n steps, float64.

    The ``steps`` are shared out by the pieces' lengths in s, at least one each, and come to ``steps`` exactly wherever
    there are as many as pieces. Raises UserError where the warp is not increasing from 0 to 1.
    """
    cuts = [start, *(k for k in kinks if start < k < end), end]
    ends = warp(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    if ends != [0.0, 1.0]:
        raise UserError(f"grid: must lead from 0 to 1, leads from {ends[0]} to {ends[1]}")
    shares = _inverse(warp, torch.tensor(cuts, dtype=torch.float64))
    pieces = []
    for (low, high), (a, b), n in zip(
        pairwise(cuts), pairwise(shares.tolist()), _share_out(steps, shares.diff().tolist()), strict=True
    ):
        taus = warp(torch.linspace(a, b, n + 1, dtype=torch.float64))
        taus[0], taus[-1] = low, high
        if not bool((taus.diff() > 0).all()):
            raise UserError(f"grid: {n} steps from {low:.4g} to {high:.4g} do not increase; choose a monotone grid")
        pieces.append(taus)
    return pieces


def _inverse(warp: Warp, tau: Tensor) -> Tensor:
    """s with warp(s) = tau, by bisection."""
    low, high = torch.zeros_like(tau), torch.ones_like(tau)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        below = warp(middle) < tau
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return torch.where(tau <= 0, 0.0, torch.where(tau >= 1, 1.0, (low + high) / 2))


def _share_out(steps: int, lengths: list[float]) -> list[int]:
    """Whole numbers of at least one that come to ``steps``, each the share of its length to within one (D'Hondt)."""
    counts = [1] * len(lengths)
    for _ in range(steps - len(lengths)):
        longest = max(range(len(lengths)), key=lambda i: lengths[i] / counts[i])
        counts[longest] += 1
    return counts
