"""Schedules: which local time each group has at global time tau, and how fast it moves."""

from lwd.schedules.curve import Curve
from lwd.schedules.fixed import IdentityCurve, OffsetCurve
from lwd.schedules.polynomial import PolynomialCurve
from lwd.schedules.schedule import Schedule

__all__ = ["Curve", "IdentityCurve", "OffsetCurve", "PolynomialCurve", "Schedule"]
