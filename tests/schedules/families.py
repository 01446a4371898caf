"""The families of curves that can be learned, and what is known of each: for the tests that hold for all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lwd.schedules import ConvexSplineCurve, Curve, PolynomialCurve, PowerCurve, RationalQuadraticCurve


class SineCurve(Curve):
    """A user's curve, as docs/extending.md shows it: t = tau - b sin(2 pi tau) / (2 pi) with |b| < 1."""

    kind = "tests.sine"
    settings = ("bound",)

    def __init__(self, bound: float = 0.9) -> None:
        super().__init__()
        self.bound = bound
        self.bend = nn.Parameter(torch.zeros(()))

    def forward(self, tau: Tensor) -> tuple[Tensor, Tensor]:
        """tau -> (t, t')."""
        s, b = tau.double(), self.bound * torch.tanh(self.bend.double())
        turn = 2 * torch.pi * s
        return (s - b * turn.sin() / (2 * torch.pi)).to(tau.dtype), (1 - b * turn.cos()).to(tau.dtype)


@dataclass(frozen=True)
class Family:
    """A class with its settings, whether it is convex, and how near the identity its start is in value and rate."""

    cls: type[Curve]
    settings: dict[str, Any] = field(default_factory=dict)
    convex: bool = False
    identity_within: float = 1e-6
    rate_within: float = 1e-6

    def new(self) -> Any:
        """As it starts."""
        return self.cls(**self.settings)

    def at(self, vector: Tensor) -> Any:
        """With these parameters, in their dtype."""
        return self.new().to(vector.dtype).with_parameters(vector)

    def drawn(self, seed: int, scale: float = 2.0) -> Any:
        """Somewhere at random, in float32."""
        size = len(self.new().parameter_vector())
        return self.at(scale * torch.randn(size, generator=torch.Generator().manual_seed(seed)))

    def joints(self, curve: Any) -> Tensor:
        """Where t'' jumps, float64."""
        if isinstance(curve, RationalQuadraticCurve):
            return curve._spline()[0].detach()
        if isinstance(curve, ConvexSplineCurve):
            return torch.arange(curve.bins + 1).double() / curve.bins
        return torch.tensor([])


# Those that start near the identity only have softplus(-5) or sigmoid(-5) of their weight elsewhere, as the polynomial.
FAMILIES = {
    "polynomial": Family(PolynomialCurve, {"degree": 4}, True, 0.01, 0.06),
    "convex spline": Family(ConvexSplineCurve, {}, True, 0.01, 0.06),
    "convex spline, one bin": Family(ConvexSplineCurve, {"bins": 1}, True, 0.01, 0.06),
    "convex spline, seven bins": Family(ConvexSplineCurve, {"bins": 7}, True, 0.01, 0.06),
    "power": Family(PowerCurve, {}, True, 0.01, 0.06),
    "rational-quadratic": Family(RationalQuadraticCurve),
    "rational-quadratic, one bin": Family(RationalQuadraticCurve, {"bins": 1}),
    "rational-quadratic, three bins": Family(RationalQuadraticCurve, {"bins": 3}),
    "a user's": Family(SineCurve, {"bound": 0.8}),
}

every_family = pytest.mark.parametrize("family", [pytest.param(one, id=name) for name, one in FAMILIES.items()])
