"""Counting the floating-point operations of a network's matrix products, a multiply-add as two."""

from __future__ import annotations

import torch
from torch import nn

from lwd.models.lightningdit import LightningDiT
from lwd.models.network import device_of, evaluating
from lwd.models.record import record_of

BACKWARD = 2
"""A linear map's backward pass is two products of the forward's size: towards its input and towards its weight."""


def forward_flops(model: nn.Module, project: bool = False) -> int | None:
    """Operations of one image's forward pass, with or without the REPA projection; works on the meta device too.

    Norms, modulations, activations and the softmax are left out, as in `torch.utils.flop_counter`, which counts for
    networks other than LightningDiT; None where it cannot.
    """
    if not isinstance(model, LightningDiT):
        return _counted(model, project)
    tokens, width = model.pos_embed.shape[1:]
    kernel = model.x_embedder.weight.numel() * tokens
    attention = len(model.blocks) * 2 * tokens**2 * width  # q k^T and its product with v
    linear = sum(
        module.weight.numel() * (1 if _once_per_image(name) else tokens)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and (project or not name.startswith("repa_projector"))
    )
    return int(2 * (kernel + attention + linear))


def training_flops(model: nn.Module, project: bool = False) -> int | None:
    """Operations of one image's training step, forward and backward, recomputation not counted (the MFU convention)."""
    forward = forward_flops(model, project)
    return None if forward is None else (1 + BACKWARD) * forward


def _once_per_image(name: str) -> bool:
    return "adaLN_modulation" in name or name.startswith("t_embedder")


@torch.no_grad()
def _counted(model: nn.Module, project: bool) -> int | None:
    """Count by running one sample, in evaluation mode."""
    from torch.utils.flop_counter import FlopCounterMode  # more than a second to import

    record, device = record_of(model), device_of(model)
    z = torch.zeros(1, *record.sample_shape, device=device)
    times, label = torch.zeros(1, len(record.layout.names), device=device), torch.zeros(1, device=device).long()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), evaluating(model):
        try:
            with FlopCounterMode(display=False) as counter:
                model(z, times, label, **({"project": True} if project else {}))
        except Exception:  # noqa: BLE001 - not every network runs under the counter, or on the meta device
            return None
    return int(counter.get_total_flops()) or None
