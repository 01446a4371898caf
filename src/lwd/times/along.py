"""Local times along a schedule, with any density of each group's local time (Lemma 3.3, generalised)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lwd.schedules import Schedule
from lwd.times.densities import Density, Uniform

Draw = Literal["uniform", "balanced"]


class AlongSchedule(nn.Module):
    """Draws global times and weighs each group so that its local time has the density q_g, whatever the curve.

    With tau of density p, group g's loss weighted by

        omega_g(tau) = q_g(t_g(tau)) t_g'(tau) / p(tau)

    is its loss at local times of density q_g (change of variables; q = p = 1 is the paper's Lemma 3.3). Called with
    uniform numbers u (B,) it gives local times and omega, (B, G) each: what a schedule gives for tau, so that either
    serves `lwd.flow.loss`.

    ``draw="uniform"``: p = 1, the paper's. ``"balanced"``: p is the mean over groups of q_g(t_g) t_g' (a group is
    drawn, then its local time, and its curve inverted), so that each omega_g is at most the number of groups and their
    mean is 1. ``densities``: one for each group, None: uniform ones. Weights carry no gradient to the schedule.
    """

    numbers = 1
    """How many uniform numbers a sample takes."""

    def __init__(self, schedule: Schedule, densities: Sequence[Density] | None = None, draw: Draw = "uniform") -> None:
        super().__init__()
        if densities is not None and len(densities) != len(schedule.names):
            raise ValueError(f"{len(densities)} densities for the {len(schedule.names)} groups {list(schedule.names)}")
        uniform = densities is None or all(isinstance(density, Uniform) for density in densities)
        self.schedule, self.densities, self.draw = schedule, None if uniform else densities, draw

    @property
    def names(self) -> tuple[str, ...]:
        """The schedule's groups."""
        return self.schedule.names

    @torch.no_grad()
    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform numbers (B,) -> local times and weights omega, (B, G) each."""
        if self.draw == "uniform":
            times, rates = self.schedule(u)
            return times, self._wanted(times, rates)
        times, rates = self.schedule(self._balanced(u))
        wanted = self._wanted(times, rates)
        p = wanted.mean(dim=1, keepdim=True)
        return times, torch.where(p > 0, wanted / torch.where(p > 0, p, 1.0), 1.0)

    def _wanted(self, times: Tensor, rates: Tensor) -> Tensor:
        """q_g(t_g) t_g', (B, G)."""
        return rates if self.densities is None else densities_at(self.densities, times) * rates

    def _balanced(self, u: Tensor) -> Tensor:
        """tau (B,) with the density p: the number's whole part in G times u is the group, the rest its local time."""
        groups = len(self.names)
        scaled = u.double() * groups
        chosen = scaled.long().clamp(max=groups - 1)
        rest = scaled - chosen
        drawn = [rest if self.densities is None else self.densities[g].quantile(rest) for g in range(groups)]
        taus = torch.stack([self.schedule[name].inverse(t) for name, t in zip(self.names, drawn, strict=True)], dim=1)
        return taus.gather(1, chosen[:, None])[:, 0].clamp(0, 1).to(u.dtype)


class Uncorrected(nn.Module):
    """SFD's own way: tau by a distribution of its own, u (B,) -> tau (B,), and every weight 1.

    The density of a group's local time then depends on its curve.
    """

    numbers = 1

    def __init__(self, schedule: Schedule, distribution: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.schedule, self._distribution = schedule, distribution

    @torch.no_grad()
    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform numbers (B,) -> local times and weights 1, (B, G) each."""
        times, rates = self.schedule(self._distribution(u))
        return times, torch.ones_like(rates)


def densities_at(densities: Sequence[Density], times: Tensor) -> Tensor:
    """q_g(t_g): times (B, G) -> (B, G)."""
    return torch.stack([density(times[:, g]) for g, density in enumerate(densities)], dim=1)
