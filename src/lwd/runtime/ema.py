"""Exponential moving average of a model's weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class EMA(Generic[M]):
    """``model``: the average, a copy in evaluation mode; it starts at the weights of the first step.

    Not `torch.optim.swa_utils.AveragedModel`, which reads a device counter, a host sync, in every update.
    """

    def __init__(self, model: M, decay: float) -> None:
        self.model: M = copy.deepcopy(model)
        self.model.requires_grad_(False).eval()
        self.decay = decay
        pairs = zip(self.model.parameters(), model.parameters(), strict=True)
        moving = [(average, live) for average, live in pairs if live.requires_grad]
        self._averages: list[Tensor] = [average for average, _ in moving]
        self._live: list[Tensor] = [live for _, live in moving]

    @torch.no_grad()
    def update(self, decay: float | None = None) -> None:
        """average <- decay * average + (1 - decay) * weights, in one fused call; ``decay``: of this update alone."""
        torch._foreach_lerp_(self._averages, self._live, 1.0 - (self.decay if decay is None else decay))

    @torch.no_grad()
    def drift(self) -> Tensor:
        """|average - weights| / |weights|, over all that moves, on the device."""
        pairs = zip(self._averages, self._live, strict=True)
        away = [torch.linalg.vector_norm(average - live) for average, live in pairs]
        size = [torch.linalg.vector_norm(live) for live in self._live]
        distance: Tensor = torch.linalg.vector_norm(torch.stack(away)) / torch.linalg.vector_norm(torch.stack(size))
        return distance
