"""Exponential moving average of a model's weights."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from lwd.runtime.sharding import local, total_norm

M = TypeVar("M", bound=nn.Module)


class EMA(Generic[M]):
    """``model``: the average of ``source``, a copy in evaluation mode; it starts at the weights of the first step.

    Not `torch.optim.swa_utils.AveragedModel`, which reads a device counter, a host sync, in every update.
    """

    def __init__(self, model: M, decay: float) -> None:
        self.model: M = copy.deepcopy(model)
        self.model.requires_grad_(False).eval()
        self.decay = decay
        self.source = model

    @cached_property
    def _moving(self) -> tuple[list[Tensor], list[Tensor]]:
        """Averages and weights of all trainable tensors, taken when first asked for: by then they may be sharded."""
        pairs = zip(self.model.parameters(), self.source.parameters(), strict=True)
        moving = [(average, live) for average, live in pairs if live.requires_grad]
        return [average for average, _ in moving], [live for _, live in moving]

    @cached_property
    def _counted(self) -> list[tuple[Tensor, Tensor]]:
        """Buffers that a checkpoint holds, such as a batch norm's statistics: averages already, so they are copied."""
        saved = self.source.state_dict().keys()
        kept = dict(self.model.named_buffers())
        return [(kept[name], live) for name, live in self.source.named_buffers() if name in saved]

    @property
    def moving_names(self) -> set[str]:
        """The names of the trainable tensors; the others stay as in the first step."""
        return {name for name, live in self.source.named_parameters() if live.requires_grad}

    @torch.no_grad()
    def update(self, decay: float | None = None) -> None:
        """Set average to decay * average + (1 - decay) * weights, in one fused call; ``decay``: of this update only."""
        averages, weights = self._moving
        share = 1.0 - (self.decay if decay is None else decay)
        torch._foreach_lerp_([local(t) for t in averages], [local(t) for t in weights], share)
        for kept, live in self._counted:
            kept.copy_(live)

    @torch.no_grad()
    def drift(self) -> Tensor:
        """Relative distance |average - weights| / |weights| over all trainable tensors, on the device."""
        averages, weights = self._moving
        return total_norm([average - live for average, live in zip(averages, weights, strict=True)]) / total_norm(
            weights
        )
