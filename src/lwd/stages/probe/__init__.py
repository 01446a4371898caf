"""Stage I on a data set: `lwd probe`, one lambda, and `lwd sweep`, several."""

from lwd.stages.probe.run import ProbeConfig, ProbeSettings, run
from lwd.stages.probe.sweep import SweepConfig, SweepSettings, sweep
from lwd.stages.probe.table import Cost, learned_table, on_screen

__all__ = [
    "Cost",
    "ProbeConfig",
    "ProbeSettings",
    "SweepConfig",
    "SweepSettings",
    "learned_table",
    "on_screen",
    "run",
    "sweep",
]
