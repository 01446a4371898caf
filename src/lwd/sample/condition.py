"""What a network is told beside z and times: one tensor, (nested) tuples or mappings of them, or nothing (None).

Every tensor has the samples first; whatever else is among them is passed on as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def each(change: Callable[..., Tensor], first: Any, *others: Any) -> Any:
    """Apply ``change`` to the tensors of conditions, place by place, and keep the conditions' structure."""
    if isinstance(first, Tensor):
        return change(first, *others)
    if isinstance(first, Mapping):
        return {key: each(change, value, *(other[key] for other in others)) for key, value in first.items()}
    if isinstance(first, tuple | list):
        parts = [each(change, *same) for same in zip(first, *others, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    return first


def take(condition: Any, rows: Tensor) -> Any:
    """Select the conditions of some samples, ``rows`` (n,), on whatever device the condition is."""
    return each(lambda tensor: tensor[rows.to(tensor.device)], condition)


def to(condition: Any, device: torch.device) -> Any:
    """Move the condition to a device."""
    # Not back to the host: there it would be read before it has come.
    return each(lambda tensor: tensor.to(device, non_blocking=tensor.device.type == "cpu"), condition)


def join(one: Any, other: Any) -> Any:
    """Put the conditions of one set of samples before those of another."""
    return each(lambda a, b: torch.cat([a, b]), one, other)


def tensors(condition: Any) -> list[Tensor]:
    """All tensors of a condition, in order."""
    if isinstance(condition, Tensor):
        return [condition]
    parts = condition.values() if isinstance(condition, Mapping) else condition
    return [t for part in parts for t in tensors(part)] if isinstance(condition, Mapping | tuple | list) else []


def first(condition: Any) -> Tensor | None:
    """Some tensor of a condition, where it holds any."""
    return next(iter(tensors(condition)), None)


def count(condition: Any) -> int | None:
    """Number of samples that a condition is of, None where it holds no tensor; raises ValueError if they disagree."""
    found = {len(tensor) if tensor.ndim else 0 for tensor in tensors(condition)}
    if len(found) > 1:
        raise ValueError(f"the condition's tensors are of {sorted(found)} samples; each needs one row per sample")
    return found.pop() if found else None
