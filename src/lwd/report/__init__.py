"""The report: one self-contained HTML page of everything that an output folder holds."""

from lwd.report.page import write_page
from lwd.report.sweep import save_curves

__all__ = ["save_curves", "write_page"]
