"""A network for latents of any shape, and data of two classes that it can be seen to have learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lwd.groups import Layout


class MLP(nn.Module):
    """All groups, flattened, through one hidden layer; told the times and the label. No lwd in it."""

    def __init__(self, entries: int, groups: int, num_classes: int, width: int = 96) -> None:
        super().__init__()
        self.null_label = num_classes
        self.enter = nn.Linear(entries + groups, width)
        self.label = nn.Embedding(num_classes + 1, width)
        self.middle = nn.Linear(width, width)
        self.leave = nn.Linear(width, entries)

    def forward(self, z: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        hidden = torch.relu(self.enter(torch.cat([z.flatten(1), times], dim=1)) + self.label(labels))
        return self.leave(torch.relu(self.middle(hidden))).view_as(z)


def mlp(layout: Layout, shape: tuple[int, ...], num_classes: int, width: int = 96) -> MLP:
    """As ``model.name: any_shape:mlp`` builds it."""
    entries = layout.channels * torch.Size(shape).numel()
    return MLP(entries, len(layout.names), num_classes, width)


NOISE = 0.3


def two_classes(layout: Layout, shape: tuple[int, ...], count: int) -> tuple[Tensor, Tensor, Tensor]:
    """x1 (N, C, ...) and labels (N,) in turn; the two classes' means (2, C, ...), of unit size in every entry."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (layout.channels, *shape), generator=generator) * 2.0 - 1
    means, labels = torch.stack([signs, -signs]), torch.arange(count) % 2
    noise = torch.randn(count, layout.channels, *shape, generator=generator)
    return means[labels] + NOISE * noise, labels, means


def nearer(samples: Tensor, means: Tensor) -> Tensor:
    """The share of entries whose sign is that of class 0's mean, for each sample (N,)."""
    return (samples.sign() == means[0].sign()).float().flatten(1).mean(1)
