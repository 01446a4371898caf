"""Solvers of ordinary differential equations, each sample with steps of its own."""

from lwd.ode.grids import ArcLength, Shift
from lwd.ode.integrate import Solution, integrate
from lwd.ode.plan import Integration

__all__ = ["ArcLength", "Integration", "Shift", "Solution", "integrate"]
