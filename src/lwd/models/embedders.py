"""Embeddings of a transformer's conditions: tokens' positions, local times, classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

FREQUENCIES = 256
MAX_PERIOD = 10000.0


def sincos_table(width: int, grid: int) -> Tensor:
    """MAE's fixed 2-D sine-cosine table (grid^2, width), tokens in row-major order.

    The first half of the channels encodes the column, the second the row; each is sines, then cosines.
    """
    omega = MAX_PERIOD ** (-torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angles = torch.outer(torch.arange(grid, dtype=torch.float64), omega)
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)  # (grid, width / 2)
    columns, rows = axis[None].expand(grid, -1, -1), axis[:, None].expand(-1, grid, -1)
    return torch.cat([columns, rows], dim=-1).flatten(0, 1).float()


class TimestepEmbedder(nn.Module):
    """A local time (B,) -> (B, width): 128 cosines and 128 sines, then a two-layer MLP."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        half = FREQUENCIES // 2
        frequencies = torch.exp(-math.log(MAX_PERIOD) * torch.arange(half, dtype=torch.float32) / half)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """t (B,)."""
        angles = t[:, None].float() * self.frequencies
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))  # type: ignore[no-any-return]


class LocalTimesEmbedder(nn.Module):
    """All local times (B, G) -> (B, width): one `TimestepEmbedder` per group, concatenated in ``order``.

    The width is shared out evenly, the first in ``order`` taking what does not divide.
    """

    def __init__(self, names: Sequence[str], order: Sequence[str], width: int) -> None:
        super().__init__()
        if sorted(order) != sorted(names):
            raise ValueError(f"time_order {list(order)} must name each of the groups {list(names)} once")
        share, extra = divmod(width, len(order))
        self.columns = [list(names).index(name) for name in order]
        self.by_group = nn.ModuleDict({n: TimestepEmbedder(share + (i < extra)) for i, n in enumerate(order)})

    def forward(self, times: Tensor) -> Tensor:
        """times (B, G), columns in layout order."""
        embedders = self.by_group.values()
        return torch.cat([embed(times[:, c]) for c, embed in zip(self.columns, embedders, strict=True)], dim=-1)
