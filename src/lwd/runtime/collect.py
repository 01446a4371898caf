"""Tensors of all processes, brought together on the main one."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

from lwd.training.loop import Engine


def gather_on_main(engine: Engine, tensor: Tensor) -> list[Tensor] | None:
    """Every process's ``tensor``, of one shape and type, in the order of the processes; None on all but the main."""
    if engine.world == 1:
        return [tensor]
    parts = [torch.empty_like(tensor) for _ in range(engine.world)] if engine.is_main else None
    distributed.gather(tensor.contiguous(), parts, dst=0)
    return parts
