"""The report: one self-contained HTML page of everything that an output folder holds; pictures of a run under way."""

from lwd.plots.curves import save_probe_curves
from lwd.stages.report.page import write_page
from lwd.stages.report.sweep import save_sweep_curves

__all__ = ["save_probe_curves", "save_sweep_curves", "write_page"]
