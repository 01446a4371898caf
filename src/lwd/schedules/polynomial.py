"""The learnable curve: a convex combination of the monomials tau, tau^2, ..., tau^(M+1) (Eq. 40-42)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from lwd.schedules.curve import Curve, narrow_pair, wide
from lwd.schedules.inverse import newton_step
from lwd.schedules.softplus import log_softplus

_NEWTON_ITERATIONS = 64
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class PolynomialCurve(Curve):
    """The paper's curve: t'(tau) = (1/Z) sum_m a_m tau^m, a_m = softplus(rho_m), Z = sum_m a_m / (m + 1) (Eq. 40).

    With p_m = a_m / ((m + 1) Z), which are positive and sum to one, Eq. 41 reads t(tau) = sum_m p_m tau^(m+1):
    convex, strictly increasing and below the identity (Eq. 42) by construction. p is computed as a softmax of
    log a_m - log(m + 1), so that no rho, however extreme, divides zero by zero.

    ``rho`` (degree + 1,) starts at t ~ tau: a_0 = 1 and the other a_m = softplus(-5).
    """

    kind = "polynomial"
    settings = ("degree",)

    powers: Tensor

    def __init__(self, degree: int = 4) -> None:
        super().__init__()
        if degree < 1:
            raise ValueError(f"degree must be at least 1, got {degree}")
        self.degree = degree
        rho = torch.full((degree + 1,), -5.0)
        rho[0] = math.log(math.expm1(1.0))
        self.rho = nn.Parameter(rho)
        self.register_buffer("powers", torch.arange(1, degree + 2), persistent=False)

    def mixture(self) -> Tensor:
        """Weights p (degree + 1,) of the monomials tau^(m+1) in t; the collapsed curve has p_M = 1."""
        return torch.softmax(log_softplus(wide(self.rho)) - wide(self.powers).log(), dim=0)

    def coefficients(self) -> Tensor:
        """Normalised coefficients a_m / Z (degree + 1,) of t' (Eq. 40)."""
        return self.mixture() * self.powers

    def forward(self, tau: Tensor) -> tuple[Tensor, Tensor]:
        """Local time (Eq. 41) and rate (Eq. 40) at tau of any shape; differentiable in tau and rho."""
        s, p = wide(tau), self.mixture()
        t = rate = torch.zeros_like(s)
        # Horner. Taken apart once: the gradient of each p[m] would be a vector of its own.
        for share, coefficient in reversed(list(zip(p.unbind(), (p * self.powers).unbind(), strict=True))):
            t = t * s + share
            rate = rate * s + coefficient
        return narrow_pair(t * s, rate, tau)

    def inverse(self, t: Tensor) -> Tensor:
        """Global time of local time t, by Newton's method from the right, which a convex curve cannot overshoot.

        Differentiable in t and rho by the implicit function theorem (one more Newton step, with the graph kept).
        """
        target = wide(t)
        with torch.no_grad():
            tau = torch.ones_like(target)
            for _ in range(_NEWTON_ITERATIONS):
                value, rate = self(tau)
                tau = (tau - (value - target) / rate.clamp(min=torch.finfo(rate.dtype).tiny)).clamp(0.0, 1.0)
        root = tau - newton_step(self, tau, target)
        return (root + (root.clamp(0.0, 1.0) - root).detach()).to(t.dtype)  # a clamp that lets the gradient through

    def area(self) -> float:
        """Area under the curve, sum_m p_m / (m + 2)."""
        return float(sum(p / (m + 2) for m, p in enumerate(self.mixture().detach().tolist())))

    def extremal(self) -> PolynomialCurve:
        """The curve tau^(M+1): all weight on the last coefficient."""
        return PolynomialCurve.from_rho(torch.tensor([-1e3] * self.degree + [1e3]))

    def formula(self) -> str:
        """Write Eq. 41 with its numbers, as 0.300 τ + 0.700 τ²; terms without weight are left out."""
        shares = [(share, _tau_to_the(m + 1)) for m, share in enumerate(self.mixture().tolist()) if share > 0]
        return shares[0][1] if len(shares) == 1 else " + ".join(f"{p:.3f}\u202f{power}" for p, power in shares)

    def to_dict(self) -> dict[str, Any]:
        """Describe the curve as plain data: `identity`, and the normalised coefficients for people."""
        return self.identity() | {"coefficients": self.coefficients().detach().tolist()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make the curve that `to_dict` describes; raises KeyError, TypeError or ValueError if its parts disagree."""
        rho = [float(r) for r in data["rho"]]
        if not all(math.isfinite(r) for r in rho):
            raise ValueError("rho must be finite")
        if len(rho) != int(data["degree"]) + 1:
            raise ValueError(f"degree {data['degree']} has {int(data['degree']) + 1} entries of rho, got {len(rho)}")
        curve = cls.from_rho(torch.tensor(rho))
        stated = torch.tensor([float(c) for c in data["coefficients"]], dtype=torch.float64)
        if stated.shape != curve.rho.shape or not torch.allclose(
            stated, curve.coefficients().double(), rtol=1e-4, atol=1e-6
        ):
            raise ValueError("'coefficients' are not those of 'rho'; edit both or regenerate the file")
        return curve

    @classmethod
    def from_rho(cls, rho: Tensor) -> Self:
        """Make the curve with the given rho (degree + 1,)."""
        curve = cls(degree=len(rho) - 1)
        with torch.no_grad():
            curve.rho.copy_(rho)
        return curve


def _tau_to_the(exponent: int) -> str:
    """τ, τ², τ³, ..."""
    return "τ" if exponent == 1 else "τ" + str(exponent).translate(_SUPERSCRIPTS)
