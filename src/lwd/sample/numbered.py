"""Samples by number: the label and the seed of each, the same wherever they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lwd.errors import UserError
from lwd.models import null_label, record_of

Classes = Literal["balanced", "null"] | Sequence[int]
"""All classes in turn, none, or these in turn."""


def labels_of(classes: Classes, count: int, model: nn.Module) -> Tensor:
    """Labels (count,) int64 for a network. Raises UserError for a class that it lacks."""
    known, null = record_of(model).num_classes, null_label(model)
    if classes == "null":
        if null is None:
            raise UserError("sample.labels: the network has no null_label; name classes, or 'balanced'")
        return torch.full((count,), null)
    some = torch.tensor(range(known) if classes == "balanced" else classes)
    if int(some.max()) >= known:
        raise UserError(f"sample.labels: class {int(some.max())}; the model has 0 to {known - 1}")
    return some[torch.arange(count) % len(some)]


def seeds_of(seed: int, count: int) -> Tensor:
    """One for each sample, (count,) int64."""
    return seed * 2**32 + torch.arange(count)
