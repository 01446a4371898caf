"""Losses by local time: where on its own path from noise to data each group is hard to predict."""

from __future__ import annotations

import torch
from torch import Tensor

TIME_BINS = 5
"""Equal bins of [0, 1]: [0, .2), [.2, .4), ..., [.8, 1]."""


@torch.no_grad()
def losses_by_time(losses: Tensor, times: Tensor, bins: int = TIME_BINS) -> tuple[Tensor, Tensor]:
    """Losses l_g (B, G) at local times t_g (B, G) in [0, 1] -> their sums and numbers in each bin of t_g, (G, bins).

    The last bin holds 1, too. Compares and sums, rather than scatters, so that a GPU adds in the same order each time.
    """
    edges = torch.linspace(0, 1, bins + 1, device=times.device)[1:-1]
    member = torch.bucketize(times, edges, right=True)[..., None] == torch.arange(bins, device=times.device)
    return torch.where(member, losses[..., None], 0).sum(dim=0), member.sum(dim=0, dtype=torch.float32)
