"""`lwd watch` and `lwd runs`: what runs do, from the files that they leave; the runs themselves are never touched."""

from lwd.stages.watch.run import History, Run
from lwd.stages.watch.screen import sparkline, watch

__all__ = ["History", "Run", "sparkline", "watch"]
