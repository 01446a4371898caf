"""Stage I: learning the schedule."""

from lwd.probe.loop import ProbeConfig, ProbeSettings, run
from lwd.probe.sweep import SweepConfig, SweepRow, SweepSettings, sweep
from lwd.schedules.collapse import distance_from_collapse

__all__ = [
    "ProbeConfig",
    "ProbeSettings",
    "SweepConfig",
    "SweepRow",
    "SweepSettings",
    "distance_from_collapse",
    "run",
    "sweep",
]
