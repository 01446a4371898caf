"""A plan: the segments of global time that every sample passes through, and with what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.ode.grids import ArcLength, Warp, fixed_grid, uniform
from lwd.ode.methods import SOLVERS, Method, Solver, ab2_dense, method
from lwd.schedules import Schedule

KINK_MARGIN = 1e-12
"""How far from a kink V is asked, at the least: some thousand ulps, so that no rounding of a curve's own arithmetic
lands on the other side."""


@dataclass(frozen=True)
class Integration:
    """A solver and its settings; the defaults are the paper's.

    ``atol`` and ``rtol`` are dopri5's: the root mean square over one sample's entries of error / (atol + rtol max|z|)
    stays below 1 in every step. ``steps`` and ``grid`` are the others': "uniform" in tau, "arc_length" of the
    schedule, a `Shift`, or any increasing map of [0, 1] onto itself.
    """

    solver: Solver = "dopri5"
    atol: float = 1e-6
    rtol: float = 1e-3
    steps: int = 50
    grid: str | Warp = "uniform"

    def warp(self, schedule: Schedule) -> Warp:
        """Turn ``grid`` into a map of [0, 1] onto itself. Raises UserError for an unknown name."""
        if callable(self.grid):
            return self.grid
        if self.grid not in ("uniform", "arc_length"):
            raise UserError(f"grid: unknown name {self.grid!r}; known: uniform, arc_length, or a monotone map")
        return uniform if self.grid == "uniform" else ArcLength(schedule)


@dataclass(frozen=True)
class Plan:
    """Segments of global time, P of them: an adaptive method's pieces between kinks, or a fixed grid's steps.

    ``starts``, ``ends`` (P,); V is asked within ``lows``, ``highs`` (P,); ``dense`` (P, k, p) is each segment's dense
    output, ``stages`` (n + 1, k) and ``nodes`` (n + 1,) the method's with one more row: the trial Euler step by which
    an adaptive method finds its first step size; ``error`` (k,) is an adaptive method's. float64, on the samples'
    device.
    """

    starts: Tensor
    ends: Tensor
    lows: Tensor
    highs: Tensor
    dense: Tensor
    stages: Tensor
    nodes: Tensor
    error: Tensor | None
    multistep: bool
    atol: float
    rtol: float

    @property
    def last_stage(self) -> int:
        """Index of the stage after which a step ends; the trial step comes behind it."""
        return len(self.nodes) - 2


def make_plan(how: Integration, schedule: Schedule, device: torch.device) -> Plan:
    """Plan an integration from 0 to 1 under a schedule."""
    return plan_between(how, schedule.kinks, how.warp(schedule), device)


def plan_between(
    how: Integration, kinks: Sequence[float], warp: Warp, device: torch.device, start: float = 0.0, end: float = 1.0
) -> Plan:
    """Plan an integration from ``start`` to ``end``. Raises UserError for a bad solver, grid or tolerance."""
    if how.solver not in SOLVERS:
        raise UserError(f"solver: unknown name {how.solver!r}; known: {', '.join(SOLVERS)}")
    if how.steps < 1 or not (how.atol > 0 and how.rtol >= 0):
        raise UserError(
            f"{how.solver}: needs steps >= 1, atol > 0 and rtol >= 0, got {how.steps}, {how.atol:g}, {how.rtol:g}"
        )
    its = method(how.solver)
    cuts = [start, *(k for k in kinks if start < k < end), end]
    if its.error is None:
        pieces = fixed_grid(warp, how.steps, kinks, start, end)
    else:
        pieces = [torch.tensor(pair, dtype=torch.float64) for pair in pairwise(cuts)]
    inside = [
        (low + KINK_MARGIN * (low in kinks), high - KINK_MARGIN * (high in kinks)) for low, high in pairwise(cuts)
    ]
    bounds = torch.tensor(
        [pair for pair, taus in zip(inside, pieces, strict=True) for _ in taus[1:]], dtype=torch.float64
    )
    probe = torch.zeros(1, its.stages.shape[1], dtype=torch.float64)
    probe[0, 0] = 1.0
    on = partial(Tensor.to, device=device, non_blocking=True)
    lows, highs = on(bounds).unbind(1)
    return Plan(
        on(torch.cat([taus[:-1] for taus in pieces])),
        on(torch.cat([taus[1:] for taus in pieces])),
        lows,
        highs,
        on(torch.cat([_dense(its, taus) for taus in pieces])),
        on(torch.cat([its.stages, probe])),
        on(torch.cat([its.nodes, torch.ones(1, dtype=torch.float64)])),
        on(its.error) if its.error is not None else None,
        its.multistep,
        how.atol,
        how.rtol,
    )


def _dense(its: Method, taus: Tensor) -> Tensor:
    """The dense output of each step of a piece (n, k, p): a multistep method starts every piece with Euler's step."""
    if not its.multistep:
        return its.dense.expand(len(taus) - 1, -1, -1)
    h = taus.diff().tolist()
    return torch.stack([ab2_dense(0.0), *(ab2_dense(now / before) for before, now in pairwise(h))])
