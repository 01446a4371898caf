"""The optimiser of every stage (Table 5): AdamW, fused; and the one learning-rate schedule."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW

BETAS = (0.9, 0.999)
"""Table 5."""


def adamw(*groups: tuple[nn.Module, float], weight_decay: float = 0.0) -> AdamW:
    """AdamW over the trainable parameters of each (module, learning rate)."""
    parameters = [{"params": [p for p in m.parameters() if p.requires_grad], "lr": lr} for m, lr in groups]
    return AdamW(parameters, betas=BETAS, weight_decay=weight_decay, fused=True)


def warm_cosine(step: int, steps: int, warmup: int) -> float:
    """The factor on the learning rate in ``step`` (from 0): linear over ``warmup`` steps, then a cosine down to zero.

    (step + 1) / warmup, then (1 + cos(pi (step - warmup) / (steps - warmup))) / 2: zero in step ``steps``, the first
    that is not taken.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup))
