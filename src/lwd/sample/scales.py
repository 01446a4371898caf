"""How strong guidance is: a number, or a ramp over time, for all groups or one by name, within an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.groups import Layout


@dataclass(frozen=True)
class Interval:
    """Guidance is on while the local time of ``group`` lies in [low, high], both edges included."""

    group: str
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Ramp:
    """A scale from ``first`` to ``last`` as ``over`` goes from 0 to 1: a group's local time, or global time (None).

    Linear, or half a cosine: slow at both ends.
    """

    first: float
    last: float
    shape: Literal["linear", "cosine"] = "linear"
    over: str | None = None

    def at(self, clock: Tensor) -> Tensor:
        """The scale at clock (B,) in [0, 1]."""
        part = clock if self.shape == "linear" else (1 - torch.cos(torch.pi * clock)) / 2
        return self.first + (self.last - self.first) * part


OneScale = float | Ramp
Scale = OneScale | Mapping[str, OneScale]
"""One w for all groups, or one by name."""


@dataclass(frozen=True)
class Strength:
    """A scale and an interval of a layout: the w of every sample and group."""

    scale: Scale
    interval: Interval | None
    layout: Layout

    def __post_init__(self) -> None:
        names = self.layout.names
        if isinstance(self.scale, Mapping) and set(self.scale) != set(names):
            raise UserError(f"guidance: scale must name each of the groups {list(names)}, got {sorted(self.scale)}")
        clocks = [s.over for s in self.by_group() if isinstance(s, Ramp) and s.over is not None]
        for group in [*clocks, *([self.interval.group] if self.interval else [])]:
            if group not in names:
                raise UserError(f"guidance: there is no group {group!r}; groups are {list(names)}")

    def by_group(self) -> list[OneScale]:
        """Each group's scale, in layout order."""
        if isinstance(self.scale, Mapping):
            return [self.scale[name] for name in self.layout.names]
        return [self.scale] * len(self.layout.names)

    @property
    def is_one(self) -> bool:
        """Whether it changes nothing at any time."""
        return all((s.first, s.last) == (1, 1) if isinstance(s, Ramp) else s == 1 for s in self.by_group())

    def at(self, times: Tensor, tau: Tensor | None) -> Tensor:
        """times (B, G), tau (B,) -> w (B, G), 1 outside the interval. A ramp over global time needs ``tau``."""
        columns = []
        for scale in self.by_group():
            if not isinstance(scale, Ramp):
                columns.append(torch.full_like(times[:, 0], scale))
            elif scale.over is not None:
                columns.append(scale.at(times[:, self.layout.names.index(scale.over)]))
            elif tau is None:
                raise ValueError("a scale that is a ramp over global time needs tau")
            else:
                columns.append(scale.at(tau).to(times.dtype))
        w = torch.stack(columns, dim=1)
        if self.interval is None:
            return w
        t = times[:, self.layout.names.index(self.interval.group), None]
        return torch.where((t >= self.interval.low) & (t <= self.interval.high), w, 1.0)
