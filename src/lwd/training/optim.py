"""The optimiser of every stage (Table 5): AdamW, fused; and its learning rate by step."""

from __future__ import annotations

import math
from typing import Literal

from torch import nn
from torch.optim import AdamW, Optimizer

BETAS = (0.9, 0.999)
"""Table 5."""

LRSchedule = Literal["constant", "cosine", "linear"]
"""How the learning rate goes on after its warm-up."""


def adamw(*groups: tuple[nn.Module, float], weight_decay: float = 0.0) -> AdamW:
    """AdamW over the trainable parameters of each (module, learning rate)."""
    parameters = [{"params": [p for p in m.parameters() if p.requires_grad], "lr": lr} for m, lr in groups]
    return AdamW(parameters, betas=BETAS, weight_decay=weight_decay, fused=True)


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Give all parameters the learning rate of the step that comes."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def lr_factor(step: int, steps: int, warmup: int, schedule: LRSchedule, final: float = 0.0) -> float:
    """The factor on the learning rate in ``step`` (from 0): linear over ``warmup`` steps, then as ``schedule`` says.

    (step + 1) / warmup; then with s = (step - warmup) / (steps - warmup), final + (1 - final) f(s), where f is 1 for
    constant, (1 + cos(pi s)) / 2 for cosine, 1 - s for linear: the factor is ``final`` in step ``steps``, the first
    that is not taken.
    """
    if step < warmup:
        return (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    falls = {"constant": 1.0, "cosine": 0.5 + 0.5 * math.cos(math.pi * share), "linear": 1 - share}
    return final + (1 - final) * falls[schedule]
