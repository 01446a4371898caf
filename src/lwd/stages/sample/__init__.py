"""`lwd sample`: images by the thousand."""

from lwd.stages.sample.run import run
from lwd.stages.sample.settings import SampleConfig, SampleSettings

__all__ = ["SampleConfig", "SampleSettings", "run"]
