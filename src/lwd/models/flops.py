"""What a network costs by counting: floating-point operations of its matrix products, a multiply-add counted as two."""

from __future__ import annotations

from torch import nn

from lwd.models.lightningdit import LightningDiT

BACKWARD = 2
"""A linear map's backward pass is two products of the forward's size: towards its input and towards its weight."""


def forward_flops(model: LightningDiT, project: bool = False) -> int:
    """Operations of one image's forward pass, with or without the REPA projection; works on the meta device too.

    Norms, modulations, activations and the softmax are left out, as in `torch.utils.flop_counter`.
    """
    tokens, width = model.pos_embed.shape[1:]
    kernel = model.x_embedder.weight.numel() * tokens
    attention = len(model.blocks) * 2 * tokens**2 * width  # q k^T and its product with v
    linear = sum(
        module.weight.numel() * (1 if _once_per_image(name) else tokens)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and (project or not name.startswith("repa_projector"))
    )
    return int(2 * (kernel + attention + linear))


def training_flops(model: LightningDiT, project: bool = False) -> int:
    """Operations of one image's training step, forward and backward, recomputation not counted (the MFU convention)."""
    return (1 + BACKWARD) * forward_flops(model, project)


def _once_per_image(name: str) -> bool:
    return "adaLN_modulation" in name or name.startswith("t_embedder")
