"""Sampling under a schedule, with guidance."""

from lwd.ode.grids import ArcLength, Shift
from lwd.ode.integrate import Solution, integrate
from lwd.ode.plan import Integration
from lwd.sample.field import Flow, make_flow
from lwd.sample.generate import Ended, Samples, generate, run_flow
from lwd.sample.guidance import AutoGuidance, ClassifierFreeGuidance, CombinedGuidance, Interval, Ramp
from lwd.sample.path import Trajectory, trace
from lwd.stages.sample.run import run
from lwd.stages.sample.settings import SampleConfig, SampleSettings

__all__ = [
    "ArcLength",
    "AutoGuidance",
    "ClassifierFreeGuidance",
    "CombinedGuidance",
    "Ended",
    "Flow",
    "Integration",
    "Interval",
    "Ramp",
    "SampleConfig",
    "SampleSettings",
    "Samples",
    "Shift",
    "Solution",
    "Trajectory",
    "generate",
    "integrate",
    "make_flow",
    "run",
    "run_flow",
    "trace",
]
