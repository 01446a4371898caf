"""A learnable curve of two numbers: how much of the way it lags, and how late it then comes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lwd.schedules.curve import Curve, narrow_pair, wide

LEAST_EXPONENT = 2.0


class PowerCurve(Curve):
    """Blend of the identity and a power: t = (1 - p) tau + p tau^a, p = sigmoid(lag), a = 2 + softplus(lateness).

    Convex and below the identity; its rates are 1 - p at tau = 0 and 1 + p (a - 1) at tau = 1, positive and finite, and
    t'' is finite too, as a >= 2. (The other candidate, Kumaraswamy's 1 - (1 - tau^a)^b, has a rate of 0 or infinity at
    either end as soon as a or b is not 1, so that a loss weighted by the rate is not bounded there.)

    ``lag`` and ``lateness`` start at p = 0.0067 and a = 5, which is t ~ tau. What it collapses on is the limit of
    p = 1 and a without bound: waiting to the end (`collapse.extremal`).
    """

    kind = "power"

    def __init__(self) -> None:
        super().__init__()
        self.lag = nn.Parameter(torch.tensor(-5.0))
        self.lateness = nn.Parameter(torch.tensor(3.0).expm1().log())

    def _shares(self) -> tuple[Tensor, Tensor, Tensor]:
        """1 - p, p and a."""
        lag = wide(self.lag)
        return torch.sigmoid(-lag), torch.sigmoid(lag), LEAST_EXPONENT + F.softplus(wide(self.lateness))

    def forward(self, tau: Tensor) -> tuple[Tensor, Tensor]:
        """Local time and rate at tau of any shape; differentiable in tau and the parameters."""
        s, (rest, share, a) = wide(tau), self._shares()
        return narrow_pair(rest * s + share * s**a, rest + share * a * s ** (a - 1), tau)

    def formula(self) -> str:
        """Write the curve with its numbers, as 0.993 τ + 0.007 τ^5.00."""
        rest, share, a = (x.item() for x in self._shares())
        return f"{rest:.3f}\u202fτ + {share:.3f}\u202fτ^{a:.2f}"

    def area(self) -> float:
        """Area under the curve, (1 - p) / 2 + p / (a + 1)."""
        rest, share, a = (x.item() for x in self._shares())
        return rest / 2 + share / (a + 1)
