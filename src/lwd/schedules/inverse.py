"""The inverse of a curve: where it reaches a local time, and the gradients of that by the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_HALVINGS = 64

Pair = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A curve: tau -> (t, dt/dtau)."""


@torch.no_grad()
def by_bisection(curve: Pair, target: Tensor) -> Tensor:
    """Solve t(tau) = ``target`` for any non-decreasing curve; where it waits, the last tau, at target 1 the first."""
    low, high = torch.zeros_like(target), torch.ones_like(target)
    ends = target >= 1
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        value, _ = curve(middle)
        before = torch.where(ends, value < target, value <= target)
        low, high = torch.where(before, middle, low), torch.where(before, high, middle)
    return torch.where(ends, high, low)


def newton_step(curve: Pair, tau: Tensor, target: Tensor) -> Tensor:
    """Newton's step towards t(tau) = ``target``: (t(tau) - target) / (dt/dtau), 0 where the curve waits.

    The graph is that of t at a root ``tau``, so that tau less the step has the gradients of the inverse with respect
    to the target and to the curve's parameters (implicit function theorem).
    """
    value, rate = curve(tau)
    moves = rate > 0
    return torch.where(moves, (value - target) / torch.where(moves, rate.detach(), 1.0), 0.0)


def with_gradients(curve: Pair, tau: Tensor, target: Tensor) -> Tensor:
    """Give a root ``tau``, whose value stays, the gradients of the inverse."""
    step = newton_step(curve, tau, target)
    return tau - (step - step.detach())
