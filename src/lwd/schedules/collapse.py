"""When a schedule has collapsed onto the extremal one, as probes with too small a lambda do (Section 4.2).

Each family has its `extremal` curve: the polynomial tau^(M+1), the convex spline the ramp over its last bin; a curve
that names none has the last moment, or the first, whichever is nearer (`WAITS`). The area between a curve and the
extremal one, as a share of that between the identity and the extremal one, is the distance

    d = (area - A) / (1/2 - A),    A the area under the extremal curve: 0 there, 1 at the identity.

The polynomial is a mixture p of the monomials tau^(m+1), m = 0..M (Eq. 41), and the area under tau^(m+1) is
1 / (m + 2), so

    d = sum_m p_m w_m,    w_m = (1 / (m + 2) - 1 / (M + 2)) / (1 / 2 - 1 / (M + 2)),    1 = w_0 > ... > w_M = 0,

which with the mass p_M on a_M obeys w_(M-1) (1 - p_M) <= d <= 1 - p_M. Neither says all: at M = 4, tau^4 (d = 0.1,
p_M = 0) is near the extremal curve and not on it, and 0.3 tau + 0.7 tau^5 (d = 0.3) has most of its mass on a_M and is
far from it. The same holds of the convex spline's mixture. A curve that is no mixture has its mass by its distance:
there the distance alone says whether it collapsed.
"""

from __future__ import annotations

from dataclasses import dataclass

from lwd.schedules.curve import Curve
from lwd.schedules.fixed import OffsetCurve
from lwd.schedules.schedule import Schedule

WAITS = 999.0
"""The extremal curve of a family that names none moves in one thousandth of the time, at its end or at its start."""


@dataclass(frozen=True)
class Criterion:
    """When a curve counts as collapsed: d is below ``distance``, and more than ``mass`` of the mixture is on a_M."""

    distance: float = 0.1
    mass: float = 0.5

    def holds(self, curve: Curve) -> bool:
        """Whether ``curve`` has collapsed."""
        return distance(curve) < self.distance and mass(curve) > self.mass


@dataclass(frozen=True)
class Collapse:
    """Verdict on a schedule, with d and p_M of the learned group that is nearest to collapse."""

    distance: float
    mass: float
    collapsed: bool


def extremal(curve: Curve) -> Curve:
    """The curve to which ``curve`` collapses: its family's, else a step at tau = 1 or, for one that leads, at 0."""
    return curve.extremal() or OffsetCurve(WAITS, leads=curve.area() > 1 / 2)


def distance(curve: Curve) -> float:
    """Distance d from collapse: 0 for the extremal curve, 1 for the identity."""
    area, least = curve.area(), extremal(curve).area()
    return float(max(0.0, (area - least) / (1 / 2 - least)))


def mass(curve: Curve) -> float:
    """Mass p_M = (a_M / (M + 1)) / Z (Eq. 40): 1 for the extremal curve, near 0 for the identity.

    For a curve that is no mixture, 1 - d.
    """
    mixture = curve.mixture()
    return max(0.0, 1.0 - distance(curve)) if mixture is None else float(mixture.detach()[-1])


def assess(schedule: Schedule, criterion: Criterion) -> Collapse | None:
    """Judge a schedule: collapsed where one learned group is, by both measures; None where no group is learned."""
    curves = [schedule[name] for name in schedule.learned]
    found = [Collapse(distance(curve), mass(curve), criterion.holds(curve)) for curve in curves]
    return min(found, key=lambda one: (not one.collapsed, one.distance), default=None)


def distance_from_collapse(schedule: Schedule) -> float | None:
    """Smallest distance d among the learned groups; None where no group is learned."""
    return min((distance(schedule[name]) for name in schedule.learned), default=None)
