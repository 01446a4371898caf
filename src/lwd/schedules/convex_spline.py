"""A learnable convex curve that is local: quadratic pieces whose slopes grow from knot to knot."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lwd.schedules.curve import Curve, narrow_pair, wide
from lwd.schedules.inverse import with_gradients
from lwd.schedules.softplus import log_softplus


class ConvexSplineCurve(Curve):
    """Convex spline: t' is linear between the knots k / K, k = 0..K, and grows there: s_k = a_0 + ... + a_k.

    Up to a factor, t' is a_0 plus, for j = 1..K, a_j times a ramp that rises from 0 to 1 over bin j, with
    a_j = softplus(rho_j). So t is a mixture, with the shares p_j ~ a_j A_j, of K + 1 convex curves h_j: the integrals
    of 1 and of the ramps, divided by their areas A_j. Convex, strictly increasing and below the identity by
    construction, as the polynomial is. Its rate is continuous, so there are no kinks; t'' jumps at the knots.

    ``rho`` (bins + 1,) starts at t ~ tau: a_0 = 1 and the other a_j = softplus(-5) / K.
    """

    kind = "convex-spline"
    settings = ("bins",)

    before: Tensor

    def __init__(self, bins: int = 8) -> None:
        super().__init__()
        if bins < 1:
            raise ValueError(f"bins must be at least 1, got {bins}")
        self.bins = bins
        rho = torch.full((bins + 1,), math.log(math.expm1(math.log1p(math.exp(-5.0)) / bins)))
        rho[0] = math.log(math.expm1(1.0))
        self.rho = nn.Parameter(rho)
        self.register_buffer("before", torch.arange(bins), persistent=False)

    def _areas(self) -> Tensor:
        """A_j (bins + 1,) of 1 and of the ramps."""
        ramps = (self.bins - wide(self.before) - 0.5) / self.bins
        return torch.cat([torch.ones_like(ramps[:1]), ramps])

    def _knots(self) -> Tensor:
        """k / K (bins + 1,)."""
        return torch.arange(self.bins + 1, device=self.rho.device).to(wide(self.rho).dtype) / self.bins

    def mixture(self) -> Tensor:
        """Shares p (bins + 1,) of the h_j in t; the collapsed curve has p_K = 1."""
        return torch.softmax(log_softplus(wide(self.rho)) + self._areas().log(), dim=0)

    def forward(self, tau: Tensor) -> tuple[Tensor, Tensor]:
        """Local time and rate at tau of any shape; differentiable in tau (from the right at knots) and rho."""
        s, p = wide(tau), self.mixture()
        weights = p / self._areas()
        u = s.unsqueeze(-1) * self.bins - self.before  # where s is in each bin: 0 at its left, 1 at its right
        last = self.before == self.bins - 1
        inside = (u >= 0) & ((u < 1) | last)
        done = (u >= 1) & ~last
        ramp = torch.where(inside, u, done.to(u.dtype))
        below = torch.where(inside, u.square() / 2, torch.where(done, u - 0.5, 0.0)) / self.bins
        return narrow_pair(weights[0] * s + below @ weights[1:], weights[0] + ramp @ weights[1:], tau)

    def inverse(self, t: Tensor) -> Tensor:
        """Global time of local time t, by the quadratic formula in its bin; differentiable in t and rho."""
        target = wide(t)
        with torch.no_grad():
            knots = self._knots()
            values, slopes = self(knots)
            k = torch.searchsorted(values[1:-1].contiguous(), target.contiguous(), right=True)
            rise, slope, bend = (target - values[k]).clamp(min=0.0), slopes[k], self.bins * (slopes[k + 1] - slopes[k])
            below = slope + (slope.square() + 2 * bend * rise).sqrt()
            step = torch.where(below > 0, 2 * rise / torch.where(below > 0, below, 1.0), 0.0)
            tau = torch.where(target >= 1, 1.0, (knots[k] + step).clamp(0.0, 1.0))
        return with_gradients(self, tau, target).to(t.dtype)

    def area(self) -> float:
        """Area under the curve: the sum over j of p_j times the integral of h_j."""
        right = self.bins - wide(self.before)  # bins from the ramp's left knot to tau = 1
        ramps = (1 / 6 + right * (right - 1) / 2) / (self.bins * (right - 0.5))
        return float(self.mixture().detach() @ torch.cat([torch.full_like(ramps[:1], 0.5), ramps]))

    @torch.no_grad()
    def formula(self) -> str:
        """List the rates at the knots."""
        rates = self(self._knots())[1].tolist()
        return f"rates {', '.join(f'{rate:.2f}' for rate in rates)}"

    def extremal(self) -> ConvexSplineCurve:
        """The curve h_K: 0 up to the last knot but one, then quadratic up to 1; all weight on the last slope."""
        return self.with_parameters(torch.tensor([-1e3] * self.bins + [1e3]))
