"""Algorithm 1 on a map: where rho goes at a given lambda, without training a probe.

A probe's denoiser is trained on L_rho, the kinetic term included, which shrinks it to c_g v_g with
c_g = f_g q_g / (f_g q_g + lambda t_g') where v_g is the flow loss's own minimiser and f_g q_g its weight per t_g'. On a
table of l_g and k_g = E|v_g|^2 the objective of rho is then

    integral over tau of sum_g f_g omega_g (l_g + (1 - c_g)^2 k_g) + lambda sum_g t_g'^2 c_g^2 k_g,

with omega_g = q_g t_g' held (``jacobian="stop"``) or not, and c_g held. ``kinetic_trains="schedule"``: c_g = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lwd.flow import Jacobian, KineticTrains, Reduction, group_factors
from lwd.maps.table import Table
from lwd.schedules import Schedule
from lwd.times import Density
from lwd.times.along import densities_at

NODES = 100
"""Midpoints of tau at which the objective is taken."""


def objective(
    table: Table,
    schedule: Schedule,
    kinetic_weight: float,
    *,
    jacobian: Jacobian = "stop",
    reduction: Reduction = "mean_flat",
    kinetic_trains: KineticTrains = "both",
    densities: Sequence[Density] | None = None,
    factors: Sequence[float] | None = None,
) -> dict[str, Tensor]:
    """L_flow, R_kin and L_rho = L_flow + lambda R_kin of a probe whose denoiser has come to rest, scalars float64.

    ``factors``: f_g of each group, None for those of ``reduction``.
    """
    tau = (torch.arange(NODES, dtype=torch.float64) + 0.5) / NODES
    times, rates = schedule(tau)
    loss, speed = table(times)
    share = torch.tensor(factors or group_factors(table.layout, reduction), dtype=torch.float64)
    density = torch.ones_like(times)
    if densities is not None:
        density = densities_at(densities, times)
    omega = density * rates
    omega = omega.detach() if jacobian == "stop" else omega
    if kinetic_trains == "both":
        weight, pulled = (share * density).detach(), speed
        kept = weight / (weight + kinetic_weight * rates.detach()).clamp_min(1e-12)
    else:
        kept, pulled = torch.ones_like(rates), speed.detach()
    flow = (share * omega * (loss + (1 - kept).square() * speed)).sum(1).mean()
    kinetic = (rates.square() * kept.square() * pulled).sum(1).mean()
    return {"flow": flow, "kinetic": kinetic, "total": flow + kinetic_weight * kinetic}


def learned_on(
    table: Table,
    kinetic_weight: float,
    *,
    family: str = "polynomial",
    steps: int = 600,
    burn_in: int = 400,
    rho_lr: float = 0.05,
    curve: dict[str, Any] | None = None,
    **how: Any,
) -> Schedule:
    """The schedule to which Algorithm 1 comes on the map at ``kinetic_weight``: rho by Adam, averaged after burn-in.

    ``how``: as in `objective`. Deterministic; the table stands for a denoiser that keeps up with rho.
    """
    schedule = Schedule.learnable(table.layout.names, table.leader, family, **(curve or {}))
    optimizer = torch.optim.Adam(schedule.parameters(), rho_lr)
    sums = {name: torch.zeros_like(rho) for name, rho in schedule.parameter_vectors().items()}
    for step in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(objective(table, schedule, kinetic_weight, **how)["total"])
        optimizer.step()
        if step >= burn_in:
            for name, rho in schedule.parameter_vectors().items():
                sums[name] += rho
    return schedule.with_parameters({name: total / (steps - burn_in) for name, total in sums.items()})
