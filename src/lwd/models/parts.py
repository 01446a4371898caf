"""The first and the last map of a network to which groups were added: every added group is computed apart.

A matrix product of another size adds up in another order. Apart, the groups that a network had keep its products, and
its output stays equal to the last bit when groups are added with weights of zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lwd.groups import Layout


def parts_of(layout: Layout, added: Sequence[str]) -> tuple[list[int], ...]:
    """The groups, by place in the layout, that are computed together: all that were not added, then one by one."""
    first = [layout.names.index(name) for name in layout.names if name not in added]
    return (*([first] if first else []), *([layout.names.index(name)] for name in added))


class PartedConv2d(nn.Conv2d):
    """The patch embedding (B, C, H, W) -> (B, width, h, w) as a sum over `parts_of` the groups."""

    def __init__(self, layout: Layout, added: Sequence[str], width: int, patch_size: int) -> None:
        super().__init__(layout.channels, width, patch_size, stride=patch_size)
        self._sizes, self._parts = layout.sizes, parts_of(layout, added)

    def forward(self, z: Tensor) -> Tensor:
        """z (B, C, H, W)."""
        inputs, kernels = torch.split(z, self._sizes, dim=1), torch.split(self.weight, self._sizes, dim=1)
        first, *rest = self._parts
        x = F.conv2d(_joined(inputs, first, 1), _joined(kernels, first, 1), self.bias, self.stride)
        for part in rest:
            x = x + F.conv2d(_joined(inputs, part, 1), _joined(kernels, part, 1), None, self.stride)
        return x


class PartedLinear(nn.Linear):
    """The output map (B, L, width) -> (B, L, p p C), channels last, computed by `parts_of` the groups."""

    def __init__(self, layout: Layout, added: Sequence[str], width: int, patch_size: int) -> None:
        super().__init__(width, patch_size**2 * layout.channels)
        self._sizes, self._parts = layout.sizes, parts_of(layout, added)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, width)."""
        channels, width = sum(self._sizes), self.in_features
        weights = torch.split(self.weight.view(-1, channels, width), self._sizes, dim=1)
        biases = torch.split(self.bias.view(-1, channels), self._sizes, dim=1)
        outputs = dict[int, Tensor]()
        for part in self._parts:
            weight, bias = _joined(weights, part, 1), _joined(biases, part, 1)
            out = F.linear(x, weight.flatten(0, 1), bias.flatten()).view(*x.shape[:-1], *bias.shape)
            outputs |= zip(part, torch.split(out, [self._sizes[group] for group in part], dim=-1), strict=True)
        return torch.cat([outputs[group] for group in sorted(outputs)], dim=-1).flatten(-2)


def _joined(tensors: Sequence[Tensor], part: Sequence[int], dim: int) -> Tensor:
    return tensors[part[0]] if len(part) == 1 else torch.cat([tensors[group] for group in part], dim=dim)
