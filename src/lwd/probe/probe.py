"""The schedule being learned, as a module for any training loop (Algorithm 1, stage I)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lwd.flow import Jacobian, KineticTrains, Reduction, Terms, interpolate, schedule_objective
from lwd.groups import Layout
from lwd.schedules import Schedule
from lwd.times import Density
from lwd.times.along import densities_at

Velocity = Callable[[Tensor, Tensor], Tensor]
"""A denoiser with its condition filled in: z (B, C, ...) and local times (B, G) -> local velocities (B, C, ...)."""


class Probe(nn.Module):
    """L_rho (Eq. 38) of a denoiser and the curves of all groups but the ``leader``, whose rho are the parameters.

        probe = Probe(layout, leader="coarse", kinetic_weight=0.04, burn_in=5_000)
        terms = probe(lambda z, times: model(z, times, y), x1)  # in each step
        terms.total.backward(); optimizer.step(); probe.after_step()
        schedule = probe.averaged()  # after the last

    The optimiser has the parameters of both (the paper: AdamW, 1e-4 for the denoiser, 1e-2 for rho). ``family`` and its
    settings: see `Schedule.learnable`; ``densities``: those of the groups' local times, None for the paper's uniform
    ones. The state dict holds rho and its running sum, so that a loop can be resumed.
    Raises ValueError for an unknown leader.
    """

    steps: Tensor

    def __init__(
        self,
        layout: Layout,
        leader: str,
        kinetic_weight: float = 0.04,
        *,
        burn_in: int = 0,
        jacobian: Jacobian = "stop",
        reduction: Reduction = "mean_flat",
        kinetic_trains: KineticTrains = "both",
        densities: Sequence[Density] | None = None,
        family: str = "polynomial",
        **curve: Any,
    ) -> None:
        super().__init__()
        self.kinetic_trains, self.densities = kinetic_trains, densities
        self.layout, self.kinetic_weight, self.burn_in = layout, kinetic_weight, burn_in
        self.jacobian, self.reduction = jacobian, reduction
        self.schedule = Schedule.learnable(layout.names, leader, family, **curve)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        for name, rho in self.schedule.parameter_vectors().items():
            self.register_buffer(f"sum_{name}", torch.zeros_like(rho))

    def forward(
        self,
        velocity: Velocity,
        x1: Tensor,
        tau: Tensor | None = None,
        x0: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Terms:
        """Data x1 (B, C, ...) -> the terms of Eq. 38, whose ``total`` is to be minimised.

        ``tau`` (B,) in [0, 1] and the noise ``x0``, of x1's shape, are drawn from ``generator`` where they are None.
        """
        if tau is None:
            tau = torch.rand(len(x1), device=x1.device, generator=generator)
        if x0 is None:
            x0 = torch.randn(x1.shape, dtype=x1.dtype, device=x1.device, generator=generator)
        times, rates = self.schedule(tau)
        z, u = interpolate(x0, x1, times, self.layout)
        v = velocity(z, times)
        omega = rates if self.densities is None else densities_at(self.densities, times) * rates
        return schedule_objective(
            v, u, rates, self.layout, self.kinetic_weight, self.jacobian, self.reduction, self.kinetic_trains, omega
        )

    @torch.no_grad()
    def after_step(self) -> None:
        """Call after every step of the optimiser: counts it, and adds rho to the sum once burn-in is over."""
        self.steps += 1
        counts = (self.steps > self.burn_in).float()
        for name, rho in self.schedule.parameter_vectors().items():
            self.get_buffer(f"sum_{name}").add_(rho * counts)

    def averages(self) -> dict[str, Tensor]:
        """The mean of rho (P,) over the steps after burn-in, by learned group."""
        count = self.steps - self.burn_in
        return {name: self.get_buffer(f"sum_{name}") / count for name in self.schedule.learned}

    def averaged(self) -> Schedule:
        """The schedule at the mean of rho, frozen, on the CPU. Raises ValueError until burn-in is over."""
        if int(self.steps) <= self.burn_in:
            raise ValueError(f"{int(self.steps)} steps are done, burn_in is {self.burn_in}: nothing to average yet")
        return self.frozen(self.averages())

    def frozen(self, vectors: dict[str, Tensor]) -> Schedule:
        """The schedule with the learned groups at ``vectors`` (P,), frozen, on the CPU."""
        return self.schedule.with_parameters({name: vector.cpu() for name, vector in vectors.items()})
