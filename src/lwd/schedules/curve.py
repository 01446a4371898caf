"""What a curve is: one group's local time t(tau) with its derivative (Eq. 8)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Curve(nn.Module):
    """A non-decreasing map of global time tau in [0, 1] onto local time t in [0, 1], t(0) = 0 and t(1) = 1."""

    kind: str

    kinks: tuple[float, ...] = ()
    """Global times in (0, 1) at which the derivative jumps; an integrator splits its interval there."""

    def forward(self, tau: Tensor) -> tuple[Tensor, Tensor]:
        """tau, any shape -> (t, dt/dtau), each of tau's shape and dtype."""
        raise NotImplementedError

    def inverse(self, t: Tensor) -> Tensor:
        """Local time, any shape -> a global time at which the curve is there (where it waits at 0, the last one)."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """The exact numbers that make this curve, and nothing computed from them: what a hash may depend on."""
        return {"kind": self.kind}

    def to_dict(self) -> dict[str, Any]:
        """Plain data that describes the curve, for schedule.json."""
        return self.identity()


def wide(x: Tensor) -> Tensor:
    """``x`` in float64, where the device has it.

    Curves compute in float64, a few scalars a sample, so that after rounding to float32 t(0) = 0, t(1) = 1,
    t <= tau and monotonicity hold exactly and not just to an ulp.
    """
    return x.float() if x.device.type == "mps" else x.double()


def narrow_pair(t: Tensor, rate: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Round a curve's value and derivative to the dtype of ``like``."""
    return t.to(like.dtype), rate.to(like.dtype)
