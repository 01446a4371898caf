"""How far a schedule is from the extremal one, tau^(M+1), on which probes with too small a lambda end (Section 4.2)."""

from __future__ import annotations

from lwd.schedules.polynomial import PolynomialCurve
from lwd.schedules.schedule import Schedule


def distance_from_collapse(schedule: Schedule) -> float | None:
    """Area between the curve and tau^(M+1), as a share of the area between the identity and tau^(M+1).

    0 for the extremal curve, 1 for the identity; in closed form, since the curve is a mixture p of monomials (Eq. 41):
    the area under tau^(m+1) is 1 / (m + 2). The smallest over the learned groups; None where no group is learned.
    """
    curves = [schedule[name] for name in schedule.names]
    distances = []
    for curve in curves:
        if isinstance(curve, PolynomialCurve):
            extremal = 1 / (curve.degree + 2)
            area = sum(float(p) / (m + 2) for m, p in enumerate(curve.mixture().detach()))
            distances.append((area - extremal) / (1 / 2 - extremal))
    return min(distances, default=None)
