"""Integrating dz/dtau = V(z, tau) (Eq. 28-29) for one batch, keeping the end state only.

Every interval is split where the schedule's rate jumps, and within a piece V is never asked at the jump itself but just
inside, so that each solver keeps its order on schedules such as SFD's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lwd.ode.grids import Warp, uniform
from lwd.ode.methods import Solver
from lwd.ode.plan import Integration, plan_between
from lwd.ode.pool import flow_through


@dataclass(frozen=True)
class Solution:
    """State z (B, D) at the end, and the number of velocity evaluations nfe (B,) of each sample."""

    z: Tensor
    nfe: Tensor


def integrate(
    velocity: Callable[[Tensor, Tensor], Tensor],
    z: Tensor,
    kinks: Sequence[float],
    solver: Solver = "dopri5",
    steps: int = 50,
    atol: float = 1e-6,
    rtol: float = 1e-3,
    start: float = 0.0,
    end: float = 1.0,
    grid: Warp = uniform,
) -> Solution:
    """Integrate dz/dtau = velocity(z, tau) from z (B, D) at tau = ``start`` to ``end``.

    ``velocity`` takes z (B, D) and tau (B,) float64 and returns (B, D); at ``kinks`` it may jump.

    ``dopri5`` adapts every sample's step to its own error (`Integration`), so that no result depends on its batch; the
    others take ``steps`` steps of the grid. Raises UserError where a sample is not finite or dopri5 gets stuck.
    """
    plan = plan_between(Integration(solver, atol, rtol, steps), kinks, grid, z.device, start, end)
    out, nfe = torch.empty_like(z), torch.zeros(len(z), dtype=torch.int64, device=z.device)

    def numbered(state: Tensor, tau: Tensor, index: Tensor) -> Tensor:
        return velocity(state, tau)

    for done in flow_through(numbered, lambda i: z[i.to(z.device, non_blocking=True)], len(z), max(len(z), 1), plan):
        where = done.index.to(z.device, non_blocking=True)
        out[where], nfe[where] = done.z, done.nfe
    return Solution(out, nfe)
