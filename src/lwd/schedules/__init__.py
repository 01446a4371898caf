"""Schedules: which local time each group has at global time tau, and how fast it moves."""

from lwd.schedules.convex_spline import ConvexSplineCurve
from lwd.schedules.curve import Curve
from lwd.schedules.fixed import IdentityCurve, OffsetCurve
from lwd.schedules.polynomial import PolynomialCurve
from lwd.schedules.power import PowerCurve
from lwd.schedules.rational_quadratic import RationalQuadraticCurve
from lwd.schedules.schedule import Schedule

__all__ = [
    "ConvexSplineCurve",
    "Curve",
    "IdentityCurve",
    "OffsetCurve",
    "PolynomialCurve",
    "PowerCurve",
    "RationalQuadraticCurve",
    "Schedule",
]
