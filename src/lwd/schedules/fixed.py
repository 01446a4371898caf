"""Curves with nothing to learn: the identity, a power, and the two halves of SFD's offset schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from lwd.schedules.curve import Curve, narrow_pair, wide


class IdentityCurve(Curve):
    """The identity t = tau, the leading group's curve (Eq. 17)."""

    kind = "identity"

    def forward(self, tau: Tensor) -> tuple[Tensor, Tensor]:
        """Local time tau and rate 1."""
        return tau, torch.ones_like(tau)

    def inverse(self, t: Tensor) -> Tensor:
        """Global time t, the local time itself."""
        return t

    def formula(self) -> str:
        """The one-letter formula τ."""
        return "τ"


class PowerOfTime(Curve):
    """A power t = tau^a with a >= 1: late for a > 1, and at a = M + 1 what polynomials collapse to (Section 4.2)."""

    kind = "power-of-time"
    settings = ("exponent",)

    def __init__(self, exponent: float = 2.0) -> None:
        super().__init__()
        if not 1.0 <= exponent < math.inf:
            raise ValueError(f"exponent must be finite and at least 1, got {exponent}")
        self.exponent = float(exponent)

    def forward(self, tau: Tensor) -> tuple[Tensor, Tensor]:
        """Local time and rate at tau of any shape; differentiable in tau."""
        s = wide(tau)
        return narrow_pair(s**self.exponent, self.exponent * s ** (self.exponent - 1), tau)

    def inverse(self, t: Tensor) -> Tensor:
        """The root t^(1/a)."""
        return (wide(t) ** (1 / self.exponent)).to(t.dtype)

    def area(self) -> float:
        """Area under the curve, 1 / (a + 1)."""
        return 1 / (self.exponent + 1)

    def formula(self) -> str:
        """Write the curve with its number, as τ^5."""
        return f"τ^{self.exponent:g}"


class OffsetCurve(Curve):
    """Half of SFD's schedule: with s = (1 + delta) tau the leader has t = min(s, 1), a follower t = max(s - delta, 0).

    The rate is 1 + delta where the group moves and 0 where it waits; at the kink itself it moves.
    """

    kind = "offset"
    settings = ("delta", "leads")

    def __init__(self, delta: float = 0.3, leads: bool = False) -> None:
        super().__init__()
        if not 0.0 <= delta < math.inf:
            raise ValueError(f"delta must be finite and not negative, got {delta}")
        self.delta = delta
        self.leads = leads
        kink = 1.0 / (1.0 + delta) if leads else delta / (1.0 + delta)
        self.kinks = (kink,) if 0.0 < kink < 1.0 else ()

    def forward(self, tau: Tensor) -> tuple[Tensor, Tensor]:
        """Local time and rate at global times tau of any shape."""
        s = wide(tau) * (1.0 + self.delta)
        moves = s <= 1.0 if self.leads else s >= self.delta
        t = s if self.leads else s - self.delta
        return narrow_pair(t.clamp(0.0, 1.0), moves.to(s.dtype) * (1.0 + self.delta), tau)

    def inverse(self, t: Tensor) -> Tensor:
        """Global time of local time t; at t = 0 a follower's last waiting moment, at t = 1 the leader's first."""
        start = 0.0 if self.leads else self.delta
        return ((wide(t) + start) / (1.0 + self.delta)).to(t.dtype)

    def area(self) -> float:
        """Area under the curve: 1 - 1 / (2 (1 + delta)) for the leader, 1 / (2 (1 + delta)) for a follower."""
        moving = 0.5 / (1.0 + self.delta)
        return 1.0 - moving if self.leads else moving

    def formula(self) -> str:
        """Write the curve with its numbers, as max(1.3 τ - 0.3, 0)."""
        speed = 1.0 + self.delta
        return f"min({speed:g}\u202fτ, 1)" if self.leads else f"max({speed:g}\u202fτ - {self.delta:g}, 0)"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make the curve that `identity` describes; raises KeyError, TypeError or ValueError for other data."""
        if not isinstance(data["leads"], bool):
            raise TypeError(f"'leads' must be true or false, got {data['leads']!r}")
        return cls(float(data["delta"]), data["leads"])
