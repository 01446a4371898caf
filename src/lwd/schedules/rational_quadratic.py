"""A learnable curve that may lead, lag, or both: the monotone rational-quadratic spline."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lwd.schedules.curve import Curve, narrow_pair, wide
from lwd.schedules.inverse import with_gradients

MIN_BIN = 1e-3
"""The least width and height of a bin."""
MIN_RATE = 1e-3
"""The least rate at a knot."""


class RationalQuadraticCurve(Curve):
    """Gregory and Delbourgo's spline through K + 1 knots, in the parametrisation of Durkan et al. (2019, Eq. 4-8).

    Widths and heights of the K bins are softmaxes of ``widths`` and ``heights`` (K,), none below `MIN_BIN`; the rates
    at the knots, those at 0 and 1 among them, are softplus of ``rates`` (K + 1,), none below `MIN_RATE`. Strictly
    increasing, with positive and finite rates everywhere; neither convex nor below the identity. The rate is
    continuous, so there are no kinks; t'' jumps at the knots. Starts at t = tau.

    What it collapses on is the limit of all height in the last bin or all in the first: waiting to the end, or done at
    the start (`collapse.extremal`), whichever is nearer.
    """

    kind = "rational-quadratic"
    settings = ("bins",)

    def __init__(self, bins: int = 8) -> None:
        super().__init__()
        if not 1 <= bins <= 1 / MIN_BIN / 2:
            raise ValueError(f"bins must be from 1 to {1 / MIN_BIN / 2:.0f}, got {bins}")
        self.bins = bins
        self.widths = nn.Parameter(torch.zeros(bins))
        self.heights = nn.Parameter(torch.zeros(bins))
        self.rates = nn.Parameter(torch.full((bins + 1,), math.log(math.expm1(1.0 - MIN_RATE))))

    def _knots(self, logits: Tensor) -> Tensor:
        """(K,) -> K + 1 knots from 0 to 1."""
        sizes = MIN_BIN + (1 - self.bins * MIN_BIN) * torch.softmax(wide(logits), dim=0)
        inner = sizes.cumsum(0)[:-1]
        return torch.cat([torch.zeros_like(sizes[:1]), inner, torch.ones_like(sizes[:1])])

    def _spline(self) -> tuple[Tensor, Tensor, Tensor]:
        """Global times, local times and rates of the knots, each (K + 1,)."""
        return self._knots(self.widths), self._knots(self.heights), MIN_RATE + F.softplus(wide(self.rates))

    @torch.no_grad()
    def formula(self) -> str:
        """List the knots that the curve goes through."""
        tau, t, _ = (knots.tolist() for knots in self._spline())
        return f"through {', '.join(f'({x:.2f}, {y:.2f})' for x, y in zip(tau, t, strict=True))}"

    def forward(self, tau: Tensor) -> tuple[Tensor, Tensor]:
        """Local time and rate at tau of any shape; differentiable in tau and the parameters."""
        s, (x, y, d) = wide(tau), self._spline()
        k = _bin_of(s, x)
        width, height, left, right = x[k + 1] - x[k], y[k + 1] - y[k], d[k], d[k + 1]
        slope, xi = height / width, (s - x[k]) / width
        rest = 1 - xi
        # Eq. 4 and 5, sums of positive numbers only
        below = slope * (xi.square() + rest.square()) + (left + right) * xi * rest
        t = y[k] + height * (slope * xi.square() + left * xi * rest) / below
        bend = right * xi.square() + 2 * slope * xi * rest + left * rest.square()
        return narrow_pair(t, (slope / below).square() * bend, tau)

    def inverse(self, t: Tensor) -> Tensor:
        """Global time of local time t, by the quadratic formula in its bin (Eq. 6-8), differentiable too."""
        target = wide(t)
        with torch.no_grad():
            x, y, d = self._spline()
            k = _bin_of(target, y)
            width, height = x[k + 1] - x[k], y[k + 1] - y[k]
            slope, risen = height / width, target - y[k]
            bend = risen * (d[k + 1] + d[k] - 2 * slope)
            a, b, c = height * (slope - d[k]) + bend, height * d[k] - bend, -slope * risen
            xi = 2 * c / (-b - (b.square() - 4 * a * c).clamp(min=0.0).sqrt())
            tau = (x[k] + width * xi).clamp(0.0, 1.0)
        return with_gradients(self, tau, target).to(t.dtype)


def _bin_of(values: Tensor, knots: Tensor) -> Tensor:
    """The bin 0..K-1 that holds each value; a knot belongs to the bin on its right."""
    return torch.searchsorted(knots.detach()[1:-1].contiguous(), values.detach().contiguous(), right=True)
