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


ADDED = "+"
"""What stands before the name of a group whose time embedding is added."""


def split_order(order: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The groups of a time order whose embeddings are concatenated, and those whose are added: ("a", "+b")."""
    added = tuple(name.removeprefix(ADDED) for name in order if name.startswith(ADDED))
    return tuple(name for name in order if not name.startswith(ADDED)), added


def time_shares(joined: Sequence[str], width: int) -> dict[str, slice]:
    """The channels of the condition that each concatenated embedding fills, the first taking what does not divide."""
    if not joined:
        return {}
    share, extra = divmod(width, len(joined))
    ends = [(i + 1) * share + min(i + 1, extra) for i in range(len(joined))]
    return {name: slice(start, end) for name, start, end in zip(joined, [0, *ends], ends, strict=False)}


class LocalTimesEmbedder(nn.Module):
    """All local times (B, G) -> (B, width): one `TimestepEmbedder` per group, concatenated in ``order``.

    The width is shared out evenly (`time_shares`). A group with a + before its name is embedded over the whole width,
    and that is added: so a group is joined to a network whose other embeddings stay as wide as they were.
    """

    def __init__(self, names: Sequence[str], order: Sequence[str], width: int) -> None:
        super().__init__()
        joined, added = split_order(order)
        if sorted([*joined, *added]) != sorted(names):
            raise ValueError(f"time_order {list(order)} must name each of the groups {list(names)} once")
        widths = {name: place.stop - place.start for name, place in time_shares(joined, width).items()}
        widths |= dict.fromkeys(added, width)
        self.added = added
        self.columns = [list(names).index(name) for name in widths]
        self.by_group = nn.ModuleDict({name: TimestepEmbedder(size) for name, size in widths.items()})

    def forward(self, times: Tensor) -> Tensor:
        """times (B, G), columns in layout order."""
        embedders = self.by_group.values()
        parts = [embed(times[:, c]) for c, embed in zip(self.columns, embedders, strict=True)]
        joined, added = parts[: len(parts) - len(self.added)], parts[len(parts) - len(self.added) :]
        return sum(added, start=torch.cat(joined, dim=-1)) if joined else sum(added[1:], start=added[0])
