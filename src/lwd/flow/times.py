"""Distributions of the global time tau, as maps from uniform numbers (so that every draw has its own seed)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

TimeDistribution = Literal["uniform", "logit_normal"]


def uniform(u: Tensor) -> Tensor:
    """Uniform global time, tau ~ U(0, 1) (Eq. 24): u in (0, 1) -> u."""
    return u


def logit_normal(u: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Logit-normal global time, SFD's and SD3's: u in (0, 1) -> tau in (0, 1), logit(tau) ~ N(mean, std^2)."""
    return torch.sigmoid(mean + std * torch.special.ndtri(u))


TIME_DISTRIBUTIONS: dict[TimeDistribution, Callable[[Tensor], Tensor]] = {
    "uniform": uniform,
    "logit_normal": logit_normal,
}
