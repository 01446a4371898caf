"""Batches as (nested) NamedTuples of tensors and Nones, samples first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

S = TypeVar("S", bound=tuple[Any, ...])


def samples(batch: tuple[Any, ...]) -> int:
    """How many samples a (nested) NamedTuple of tensors holds."""
    first = batch[0]
    return samples(first) if isinstance(first, tuple) else len(first)


def rows(batch: S, which: slice) -> S:
    """Some samples of a (nested) NamedTuple of tensors."""
    return each(batch, lambda tensor: tensor[which])


def each(batch: S, change: Callable[[Tensor], Tensor]) -> S:
    """The same (nested) NamedTuple with every tensor changed; None stays None."""
    make: Any = type(batch)
    parts = (each(x, change) if isinstance(x, tuple) else None if x is None else change(x) for x in batch)
    changed: S = make(*parts)
    return changed
