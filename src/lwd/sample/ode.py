"""Integrating dz/dtau = V(z, tau) from tau = 0 to 1 (Eq. 28-29), keeping the end state only.

Every interval is split where the schedule's rate jumps, and within a piece V is never asked at the jump itself but just
inside, so that each solver keeps its order on schedules such as SFD's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torchode
from torch import Tensor

from lwd.errors import UserError

Velocity = Callable[[Tensor, Tensor], Tensor]
"""z (B, D) and tau (B,) float64 -> dz/dtau (B, D)."""

Solver = Literal["dopri5", "heun", "euler"]


KINK_MARGIN = 1e-12
"""How far inside a piece V is asked, at the least: some thousand ulps, so that no rounding of a curve's own arithmetic
lands on the other side."""

MAX_STEPS = 1000
"""Steps of dopri5 for one sample and piece; trained networks take tens."""


@dataclass(frozen=True)
class Solution:
    """z (B, D) at the end, and how often each sample's velocity was needed (B,)."""

    z: Tensor
    nfe: Tensor


def integrate(
    velocity: Velocity,
    z: Tensor,
    kinks: Sequence[float],
    solver: Solver = "dopri5",
    steps: int = 50,
    atol: float = 1e-6,
    rtol: float = 1e-3,
    start: float = 0.0,
    end: float = 1.0,
) -> Solution:
    """From z (B, D) at tau = ``start`` to ``end``.

    ``dopri5`` adapts every sample's step to its own error (tolerances per Hairer's RMS norm of one sample), so that no
    result depends on its batch; ``heun`` and ``euler`` take ``steps`` equal steps, shared out over the pieces between
    kinks by length, at least one each. Raises UserError where the solution stops being finite or dopri5 gets stuck.
    """
    nfe = torch.zeros(len(z), dtype=torch.int64, device=z.device)
    for low, high in pairwise([start, *(k for k in kinks if start < k < end), end]):
        inside = _clamped(velocity, low + KINK_MARGIN, high - KINK_MARGIN) if kinks else velocity
        if solver == "dopri5":
            z, calls = _dopri5(inside, z, low, high, atol, rtol)
        else:
            pieces = max(1, round(steps * (high - low)))
            z = _fixed(inside, z, low, high, solver, pieces)
            calls = torch.full_like(nfe, pieces * (2 if solver == "heun" else 1))
        nfe = nfe + calls
    if not bool(torch.isfinite(z).all()):
        raise UserError("sample: the latents are not finite; is the checkpoint a trained one, of this schedule?")
    return Solution(z, nfe)


def _clamped(velocity: Velocity, low: float, high: float) -> Velocity:
    return lambda z, tau: velocity(z, tau.clamp(low, high))


def _dopri5(velocity: Velocity, z: Tensor, start: float, end: float, atol: float, rtol: float) -> tuple[Tensor, Tensor]:
    """Dormand-Prince 5(4) by torchode, each sample with its own step size."""
    term = torchode.ODETerm(lambda tau, y: velocity(y, tau))
    controller = torchode.IntegralController(atol=atol, rtol=rtol, term=term).to(z.device)
    solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term).to(z.device), controller, max_steps=MAX_STEPS)
    ones = torch.ones(len(z), dtype=torch.float64, device=z.device)
    solution = solver.solve(torchode.InitialValueProblem(y0=z, t_start=start * ones, t_end=end * ones))
    stages, first_step = 6, 2
    finished = (solution.status == 0)[:, None]
    return torch.where(finished, solution.ys[:, -1], math.nan), first_step + stages * solution.stats["n_steps"]


def _fixed(velocity: Velocity, z: Tensor, start: float, end: float, solver: Solver, steps: int) -> Tensor:
    """Euler's or Heun's method on an equidistant grid."""
    taus = torch.linspace(start, end, steps + 1, dtype=torch.float64, device=z.device)
    for now, then in pairwise(taus):
        h = (then - now).to(z.dtype)
        slope = velocity(z, now.expand(len(z)))
        if solver == "heun":
            slope = (slope + velocity(z + h * slope, then.expand(len(z)))) / 2
        z = z + h * slope
    return z
