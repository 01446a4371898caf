"""Sampling under a schedule, with guidance."""

from lwd.sample.generate import Samples, generate
from lwd.sample.guidance import AutoGuidance, ClassifierFreeGuidance, Interval
from lwd.sample.ode import Solution, integrate
from lwd.sample.run import run
from lwd.sample.settings import SampleConfig, SampleSettings

__all__ = [
    "AutoGuidance",
    "ClassifierFreeGuidance",
    "Interval",
    "SampleConfig",
    "SampleSettings",
    "Samples",
    "Solution",
    "generate",
    "integrate",
    "run",
]
