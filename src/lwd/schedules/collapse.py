"""When a schedule has collapsed onto the extremal one, tau^(M+1), as probes with too small a lambda do (Section 4.2).

A curve is a mixture p of the monomials tau^(m+1), m = 0..M (Eq. 41), and the area under tau^(m+1) is 1 / (m + 2). So
the area between the curve and tau^(M+1), as a share of that between the identity and tau^(M+1), is

    d = sum_m p_m w_m,    w_m = (1 / (m + 2) - 1 / (M + 2)) / (1 / 2 - 1 / (M + 2)),    1 = w_0 > ... > w_M = 0,

which with the mass p_M on a_M obeys w_(M-1) (1 - p_M) <= d <= 1 - p_M. Neither says all: at M = 4, tau^4 (d = 0.1,
p_M = 0) is near the extremal curve and not on it, and 0.3 tau + 0.7 tau^5 (d = 0.3) has most of its mass on a_M and is
far from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lwd.schedules.polynomial import PolynomialCurve
from lwd.schedules.schedule import Schedule


@dataclass(frozen=True)
class Criterion:
    """A curve has collapsed where d is below ``distance`` and more than ``mass`` of the mixture is on a_M."""

    distance: float = 0.1
    mass: float = 0.5

    def holds(self, curve: PolynomialCurve) -> bool:
        """Whether ``curve`` has collapsed."""
        return distance(curve) < self.distance and mass(curve) > self.mass


@dataclass(frozen=True)
class Collapse:
    """What the criterion says of a schedule; d and p_M of the learned group that is nearest to collapse."""

    distance: float
    mass: float
    collapsed: bool


def distance(curve: PolynomialCurve) -> float:
    """d: 0 for the extremal curve, 1 for the identity; in closed form."""
    extremal = 1 / (curve.degree + 2)
    area = sum(p / (m + 2) for m, p in enumerate(_mixture(curve).tolist()))
    return float(max(0.0, (area - extremal) / (1 / 2 - extremal)))


def mass(curve: PolynomialCurve) -> float:
    """p_M = (a_M / (M + 1)) / Z (Eq. 40): 1 for the extremal curve, near 0 for the identity."""
    return float(_mixture(curve)[-1])


def assess(schedule: Schedule, criterion: Criterion) -> Collapse | None:
    """Collapsed where one learned group has, by both measures of that same group; None where no group is learned."""
    curves = [schedule[name] for name in schedule.names]
    found = [
        Collapse(distance(curve), mass(curve), criterion.holds(curve))
        for curve in curves
        if isinstance(curve, PolynomialCurve)
    ]
    return min(found, key=lambda one: (not one.collapsed, one.distance), default=None)


def distance_from_collapse(schedule: Schedule) -> float | None:
    """The smallest d of the learned groups; None where no group is learned."""
    curves = [schedule[name] for name in schedule.names]
    return min((distance(curve) for curve in curves if isinstance(curve, PolynomialCurve)), default=None)


def _mixture(curve: PolynomialCurve) -> Tensor:
    return curve.mixture().detach()
