"""Stage I: learning the schedule."""

from lwd.probe.loop import ProbeConfig, ProbeSettings, run
from lwd.schedules.collapse import distance_from_collapse
from lwd.stages.probe.sweep import SweepConfig, SweepSettings, sweep
from lwd.stages.probe.table import Cost, SweepRow, on_screen

__all__ = [
    "Cost",
    "ProbeConfig",
    "ProbeSettings",
    "SweepConfig",
    "SweepRow",
    "SweepSettings",
    "distance_from_collapse",
    "on_screen",
    "run",
    "sweep",
]
