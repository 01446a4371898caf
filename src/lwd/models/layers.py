"""Transformer parts of LightningDiT: rotary attention with QK-norm, SwiGLU, adaLN modulation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-6


def modulate(norm: nn.RMSNorm, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """adaLN: norm(x) (1 + scale) + shift, for x (B, L, D), shift and scale (B, D).

    The norm's weight and the scale make one gain (B, D), which saves a pass over x.
    """
    normalised = F.rms_norm(x, norm.normalized_shape, eps=norm.eps)
    return torch.addcmul(shift[:, None], normalised, (norm.weight * (1 + scale))[:, None])


def rotary_table(head_width: int, grid: int) -> tuple[Tensor, Tensor]:
    """cos and signed sin (grid^2, head_width) of EVA-02's 2-D rotary embedding, tokens in row-major order.

    The first half of a head turns with the row, the second with the column; neighbouring channels form a pair, of which
    the first carries -sin (see `rotate`).
    """
    frequencies = 1 / 10000.0 ** (torch.arange(0, head_width // 2, 2, dtype=torch.float32) / (head_width // 2))
    angles = torch.outer(torch.arange(grid, dtype=torch.float32), frequencies).repeat_interleave(2, dim=1)
    rows, columns = angles[:, None].expand(-1, grid, -1), angles[None].expand(grid, -1, -1)
    table = torch.cat([rows, columns], dim=-1).flatten(0, 1)
    sign = torch.tensor([-1.0, 1.0]).repeat(head_width // 2)
    return table.cos(), table.sin() * sign


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the channel pairs (a, b) of x (..., L, head_width): (a cos - b sin, b cos + a sin)."""
    swapped = x.view(*x.shape[:-1], -1, 2).flip(-1).view(x.shape)
    return torch.addcmul(x * cos, swapped, sin)


class Attention(nn.Module):
    """Multi-head self-attention with RMS-normalised, rotated queries and keys: (B, L, D) -> (B, L, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.RMSNorm(width // heads, eps=NORM_EPS)
        self.k_norm = nn.RMSNorm(width // heads, eps=NORM_EPS)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x (B, L, D), cos and sin (L, D / heads)."""
        batch, length, _ = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (3, B, heads, L, D / heads)
        q, k, v = qkv.unbind(0)
        norm_dtype = self.q_norm.weight.dtype  # float32 under autocast, as in the block's norms
        q = rotate(self.q_norm(q.to(norm_dtype)), cos, sin).to(v.dtype)
        k = rotate(self.k_norm(k.to(norm_dtype)), cos, sin).to(v.dtype)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class SwiGLU(nn.Module):
    """w3(silu(w1 x) * w2 x), with w1 and w2 in one matrix: (B, L, D) -> (B, L, D)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, D)."""
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)  # type: ignore[no-any-return]


class Block(nn.Module):
    """One adaLN transformer block: (B, L, D) and the condition (B, D) -> (B, L, D)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.RMSNorm(width, eps=NORM_EPS)
        self.mlp = SwiGLU(width, int(2 / 3 * int(width * mlp_ratio)))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x (B, L, D), condition (B, D), cos and sin (L, D / heads)."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(condition).chunk(6, dim=-1)
        x = torch.addcmul(x, gate_a[:, None], self.attn(modulate(self.norm1, x, shift_a, scale_a), cos, sin))
        return torch.addcmul(x, gate_m[:, None], self.mlp(modulate(self.norm2, x, shift_m, scale_m)))


class FinalLayer(nn.Module):
    """Norm, modulation and the linear map to patches: (B, L, D) -> (B, L, outputs)."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm_final = nn.RMSNorm(width, eps=NORM_EPS)
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, L, D), condition (B, D)."""
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=-1)
        return self.linear(modulate(self.norm_final, x, shift, scale))  # type: ignore[no-any-return]
