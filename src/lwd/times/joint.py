"""Local times of all groups drawn jointly, without a schedule: the network then serves every schedule.

Each takes uniform numbers u (B, ``numbers``) and gives local times and weights, (B, G) each; the weights are 1, since
what is drawn is what is wanted. UniDiffuser, Diffusion Forcing and multimarginal interpolants train so.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lwd.times.along import AlongSchedule
from lwd.times.densities import Beta, Density


class Independent(nn.Module):
    """Each group's local time on its own, with its density."""

    def __init__(self, densities: Sequence[Density]) -> None:
        super().__init__()
        self.densities, self.numbers = densities, len(densities)

    @torch.no_grad()
    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform numbers (B, G) -> local times and weights 1, (B, G) each."""
        times = torch.stack([density.quantile(u[:, g]) for g, density in enumerate(self.densities)], dim=1)
        return times, torch.ones_like(times)


class MeanBeta(nn.Module):
    """The mean of the local times with a Beta density, and the times given it evenly (Spatial Reasoning Models).

    Independent uniform times of many groups have nearly always a mean near 1/2; here their mean takes every value.
    Given the mean, one group after another takes a uniform share of what is left, beginning at a random one.
    """

    def __init__(self, groups: int, mean: float = 0.5, concentration: float = 2.0) -> None:
        super().__init__()
        self._groups, self._density, self.numbers = groups, Beta(mean, concentration), groups + 1

    @torch.no_grad()
    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform numbers (B, G + 1) -> local times and weights 1, (B, G) each."""
        groups = self._groups
        left = self._density.quantile(u[:, 0]) * groups
        taken = []
        for after in range(groups - 1, -1, -1):
            low, high = (left - after).clamp_min(0), left.clamp_max(1)
            taken.append(low + u[:, groups - after] * (high - low) if after else left.clamp(0, 1))
            left = left - taken[-1]
        first = (u[:, groups] * groups).long().clamp(max=groups - 1)
        places = (torch.arange(groups, device=u.device) + first[:, None]) % groups
        times = torch.stack(taken, dim=1).gather(1, places)
        return times, torch.ones_like(times)


class Band(nn.Module):
    """One time for all, and each group within ``width`` of it: a band around the synchronous schedule.

    Times that leave [0, 1] are reflected at its ends.
    """

    def __init__(self, density: Density, groups: int, width: float) -> None:
        super().__init__()
        if not 0 <= width <= 1:
            raise ValueError(f"a band's width lies in [0, 1], got {width}")
        self._density, self._width, self.numbers = density, width, groups + 1

    @torch.no_grad()
    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform numbers (B, G + 1) -> local times and weights 1, (B, G) each."""
        times = self._density.quantile(u[:, :1]) + self._width * (2 * u[:, 1:] - 1)
        times = 1 - (1 - times.abs()).abs()
        return times, torch.ones_like(times)


class Mixture(nn.Module):
    """With probability ``share`` along a schedule, with its weights; otherwise as ``other`` draws."""

    def __init__(self, along: AlongSchedule, other: Independent, share: float) -> None:
        super().__init__()
        if not 0 <= share <= 1:
            raise ValueError(f"a share lies in [0, 1], got {share}")
        self._along, self._other, self._share, self.numbers = along, other, share, other.numbers + 1

    @torch.no_grad()
    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform numbers (B, G + 1) -> local times and weights, (B, G) each."""
        chosen = (u[:, :1] < self._share).expand(-1, self._other.numbers)
        curve, others = self._along(u[:, 1]), self._other(u[:, 1:])
        return torch.where(chosen, curve[0], others[0]), torch.where(chosen, curve[1], others[1])


Joint = Independent | MeanBeta | Band | Mixture
