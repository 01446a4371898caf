"""The report: one self-contained HTML page of everything that an output folder holds."""

from lwd.stages.report.page import write_page

__all__ = ["write_page"]
