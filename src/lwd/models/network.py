"""The interface of a network: what it must do, and what it may offer beyond that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Drop = Callable[[Any, Tensor], Any]
"""The conditions of a batch, without those of the samples that are ``dropped`` (B,) bool."""


class Network(Protocol):
    """A denoiser: z (B, C, ...), local times (B, G) in layout order, a condition -> local velocities like z.

    In the commands the condition is labels (B,) int64 and the network an `nn.Module` that may also have

    - ``null_label: int``, the label that stands for "no class"; or, for conditions of any other kind,
      ``drop(condition, dropped)``, which gives the condition without those of the samples ``dropped`` (B,) bool.
      With neither nothing can be dropped, and there is no classifier-free guidance;
    - ``project``: called with ``project=True`` it returns (v, REPA features (B, L, D)), D being what it was built with
      as ``feature_dim``, at the positions of ``token_grid``, a tuple of L positions along each axis in row-major order;
      without that attribute they lie on the grid of the features in the data;
    - ``blocks``: a list of modules, of each of which nothing is used but its call; they are compiled and divided among
      processes one by one, instead of the whole network; and ``checkpoint_blocks: bool``: set it, and activations are
      recomputed (`lwd.runtime.placement`).

    Its ``state_dict()`` is what is saved.
    """

    def __call__(self, z: Tensor, times: Tensor, condition: Any) -> Tensor:
        """z (B, C, ...), times (B, G), the condition -> v (B, C, ...)."""


def null_label(network: object) -> int | None:
    """The label that stands for "no class"; None where the network has none."""
    label = getattr(network, "null_label", None)
    return label if isinstance(label, int) else None


def dropper(network: object) -> Drop | None:
    """The function that drops a network's conditions: its own ``drop``, else by its null label; None: not at all."""
    drop: Drop | None = getattr(network, "drop", None)
    if drop is not None and not isinstance(drop, nn.Module):  # many a network calls its nn.Dropout that
        return drop
    null = null_label(network)
    if null is None:
        return None
    return lambda labels, dropped: torch.where(dropped, null, labels)


def token_grid(network: object) -> tuple[int, ...] | None:
    """The grid of the projected features; None: on the grid of the features in the data."""
    grid = getattr(network, "token_grid", None)
    return None if grid is None else tuple(int(n) for n in grid)


def device_of(network: nn.Module) -> torch.device:
    """The device of a network's first parameter, where it computes."""
    return next(network.parameters()).device


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Open a block in which a network is in evaluation mode; every part of it is put back into its own."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
