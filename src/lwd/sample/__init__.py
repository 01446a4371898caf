"""Sampling under a schedule, with guidance."""

from lwd.sample.field import Flow, make_flow
from lwd.sample.generate import Ended, Samples, generate, run_flow
from lwd.sample.guidance import AutoGuidance, ClassifierFreeGuidance, CombinedGuidance, Interval, Ramp
from lwd.sample.path import Trajectory, trajectory

__all__ = [
    "AutoGuidance",
    "ClassifierFreeGuidance",
    "CombinedGuidance",
    "Ended",
    "Flow",
    "Interval",
    "Ramp",
    "Samples",
    "Trajectory",
    "generate",
    "make_flow",
    "run_flow",
    "trajectory",
]
