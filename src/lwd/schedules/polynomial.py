"""The learnable curve: a convex combination of the monomials tau, tau^2, ..., tau^(M+1) (Eq. 40-42)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lwd.schedules.curve import Curve, narrow_pair, wide

_NEWTON_ITERATIONS = 64
_SOFTPLUS_IS_EXP_BELOW = -15.0


class PolynomialCurve(Curve):
    """t'(tau) = (1/Z) sum_m a_m tau^m with a_m = softplus(rho_m) and Z = sum_m a_m / (m + 1) (Eq. 40).

    With p_m = a_m / ((m + 1) Z), which are positive and sum to one, Eq. 41 reads t(tau) = sum_m p_m tau^(m+1):
    convex, strictly increasing and below the identity (Eq. 42) by construction. p is computed as a softmax of
    log a_m - log(m + 1), so that no rho, however extreme, divides zero by zero.

    ``rho`` (degree + 1,) starts at t ~ tau: a_0 = 1 and the other a_m = softplus(-5).
    """

    kind = "polynomial"

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
        """p (degree + 1,): the weight of each monomial tau^(m+1) in t; the collapsed curve has p_M = 1."""
        rho = wide(self.rho)
        log_a = torch.where(
            rho < _SOFTPLUS_IS_EXP_BELOW, rho, torch.log(F.softplus(rho.clamp(min=_SOFTPLUS_IS_EXP_BELOW)))
        )
        return torch.softmax(log_a - wide(self.powers).log(), dim=0)

    def coefficients(self) -> Tensor:
        """a_m / Z (degree + 1,): the normalised coefficients of t' (Eq. 40)."""
        return self.mixture() * self.powers

    def forward(self, tau: Tensor) -> tuple[Tensor, Tensor]:
        """tau, any shape -> (t of Eq. 41, t' of Eq. 40); differentiable in tau and rho."""
        s, p = wide(tau), self.mixture()
        t = rate = torch.zeros_like(s)
        for m in range(self.degree, -1, -1):  # Horner
            t = t * s + p[m]
            rate = rate * s + (m + 1) * p[m]
        return narrow_pair(t * s, rate, tau)

    def inverse(self, t: Tensor) -> Tensor:
        """tau with t(tau) = t, by Newton's method from the right, which a convex increasing curve cannot overshoot.

        Differentiable in t and rho by the implicit function theorem (one more Newton step, with the graph kept).
        """
        target = wide(t)
        with torch.no_grad():
            tau = torch.ones_like(target)
            for _ in range(_NEWTON_ITERATIONS):
                value, rate = self(tau)
                tau = (tau - (value - target) / rate.clamp(min=torch.finfo(rate.dtype).tiny)).clamp(0.0, 1.0)
        value, rate = self(tau)
        smooth = rate > 0
        step = torch.where(smooth, (value - target) / torch.where(smooth, rate.detach(), 1.0), 0.0)
        root = tau - step
        return (root + (root.clamp(0.0, 1.0) - root).detach()).to(t.dtype)  # a clamp that lets the gradient through

    def identity(self) -> dict[str, Any]:
        """Kind, degree and rho."""
        return {"kind": self.kind, "degree": self.degree, "rho": self.rho.detach().tolist()}

    def to_dict(self) -> dict[str, Any]:
        """`identity`, and the normalised coefficients for people."""
        return self.identity() | {"coefficients": self.coefficients().detach().tolist()}

    @classmethod
    def from_rho(cls, rho: Tensor) -> PolynomialCurve:
        """A curve with the given rho (degree + 1,)."""
        curve = cls(degree=len(rho) - 1)
        with torch.no_grad():
            curve.rho.copy_(rho)
        return curve
