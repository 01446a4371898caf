"""The optimiser of both stages (Table 5): AdamW, constant learning rate, fused."""

from __future__ import annotations

from torch import nn
from torch.optim import AdamW

BETAS = (0.9, 0.999)
"""Table 5."""


def adamw(*groups: tuple[nn.Module, float], weight_decay: float = 0.0) -> AdamW:
    """AdamW over the trainable parameters of each (module, learning rate)."""
    parameters = [{"params": [p for p in m.parameters() if p.requires_grad], "lr": lr} for m, lr in groups]
    return AdamW(parameters, betas=BETAS, weight_decay=weight_decay, fused=True)
