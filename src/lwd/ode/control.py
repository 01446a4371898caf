"""Step-size control of one sample by itself (Hairer, Norsett & Wanner, Solving ODEs I, Section II.4).

Vectors of one number per sample are float64; constants and formulas are SciPy's (`scipy.integrate.RK45`).
"""

from __future__ import annotations

import torch
from torch import Tensor

SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0
STRETCH = 1.05
"""A step that would stop just short of a segment's end goes there: 0.9 of the step that would have error 1, stretched,
is expected at an error of 0.75."""

ORDER = 5
"""1 + the order of dopri5's error estimate."""


def rms(x: Tensor) -> Tensor:
    """Root mean square of each sample (S, D) -> (S,)."""
    return x.square().mean(1).sqrt().double()


def trial_step(z: Tensor, slope: Tensor, atol: float, rtol: float, longest: Tensor) -> Tensor:
    """The step (S,) of the Euler trial: z moves by a hundredth of its size, all relative to the tolerances."""
    scale = atol + rtol * z.abs()
    d0, d1 = rms(z / scale), rms(slope / scale)
    h = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1)
    return torch.minimum(h, longest)


def first_step(z: Tensor, slope: Tensor, after: Tensor, h: Tensor, atol: float, rtol: float) -> Tensor:
    """The first step (S,), from the slopes at z and ``after`` the trial step h (S,)."""
    scale = atol + rtol * z.abs()
    d1, d2 = rms(slope / scale), rms((after - slope) / scale) / h
    steepest = torch.maximum(d1, d2)
    guess = torch.where(steepest <= 1e-15, (1e-3 * h).clamp(min=1e-6), (0.01 / steepest) ** (1 / ORDER))
    return torch.minimum(100 * h, guess)


def error_ratio(error: Tensor, before: Tensor, after: Tensor, atol: float, rtol: float) -> Tensor:
    """Error (S, D) of a step relative to what is tolerated, (S,): at most 1 is accepted."""
    return rms(error / (atol + rtol * torch.maximum(before.abs(), after.abs())))


def step_factor(ratio: Tensor, just_rejected: Tensor) -> Tensor:
    """Factor (S,) by which the step size changes; it does not grow right after a rejection."""
    factor = (SAFETY * ratio ** (-1 / ORDER)).nan_to_num(SHRINK, GROW).clamp(SHRINK, GROW)
    return torch.where((ratio > 1) | just_rejected, factor.clamp(max=1.0), factor)
