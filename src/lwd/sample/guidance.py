"""Guidance as a wrapper around velocities: v = v_weak + w (v_main - v_weak), group by group (method, Section 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lwd.groups import Layout

Model = Callable[[Tensor, Tensor, Tensor], Tensor]
"""z (B, C, H, W), times (B, G), labels (B,) -> local velocities (B, C, H, W)."""

Scale = float | Mapping[str, float]
"""One w for all groups, or one by name."""


@dataclass(frozen=True)
class Interval:
    """Guidance is on while the local time of ``group`` lies in [low, high]."""

    group: str
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class AutoGuidance:
    """The weak prediction is a worse network's (Karras et al. 2024): ``scale`` 1 is the main network alone."""

    weak: Model
    scale: Scale
    interval: Interval | None = None

    def wrap(self, model: Model, layout: Layout) -> Model:
        """The guided network."""
        if _is_one(self.scale):
            return model

        def guided(z: Tensor, times: Tensor, labels: Tensor) -> Tensor:
            return _extrapolate(
                self.weak(z, times, labels), model(z, times, labels), times, self.scale, self.interval, layout
            )

        return guided


@dataclass(frozen=True)
class ClassifierFreeGuidance:
    """The weak prediction is the same network's for the null class, in one batched call (Ho & Salimans 2021)."""

    scale: Scale
    null_label: int
    interval: Interval | None = None

    def wrap(self, model: Model, layout: Layout) -> Model:
        """The guided network."""
        if _is_one(self.scale):
            return model

        def guided(z: Tensor, times: Tensor, labels: Tensor) -> Tensor:
            null = torch.full_like(labels, self.null_label)
            both = model(torch.cat([z, z]), torch.cat([times, times]), torch.cat([null, labels]))
            weak, main = both.chunk(2)
            return _extrapolate(weak, main, times, self.scale, self.interval, layout)

        return guided


def _is_one(scale: Scale) -> bool:
    return all(s == 1.0 for s in (scale.values() if isinstance(scale, Mapping) else [scale]))


def _extrapolate(
    weak: Tensor, main: Tensor, times: Tensor, scale: Scale, interval: Interval | None, layout: Layout
) -> Tensor:
    by_group = [scale[name] if isinstance(scale, Mapping) else scale for name in layout.names]
    w = torch.tensor(by_group, device=weak.device, dtype=weak.dtype).expand(len(weak), -1)
    if interval is not None:
        t = times[:, layout.names.index(interval.group), None]
        w = torch.where((t >= interval.low) & (t <= interval.high), w, 1.0)
    return torch.lerp(weak, main, layout.expand(w))
