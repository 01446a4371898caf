"""Features on another grid than their own."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
MOST_AXES = len(_LINEAR)


def on_grid(features: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Features (B, D, ...) -> (B, D, *grid), in float32; unchanged where they lie on that grid.

    Along an axis that becomes shorter each position is the mean of those that it covers (average pooling, where the
    one length divides the other; else adaptive, whose windows overlap), along one that becomes longer it is
    interpolated linearly. Raises ValueError for another number of axes, and for more than `MOST_AXES`.
    """
    own = tuple(features.shape[2:])
    if own == grid:
        return features
    if len(own) != len(grid) or not 0 < len(grid) <= MOST_AXES:
        raise ValueError(f"features on a grid {own} cannot be brought to {grid}")
    shorter = tuple(map(min, own, grid))
    x = features.float()
    if shorter != own:
        x = F.interpolate(x, shorter, mode="area")
    return x if shorter == grid else F.interpolate(x, grid, mode=_LINEAR[len(grid)], align_corners=False)
