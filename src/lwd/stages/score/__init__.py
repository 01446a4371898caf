"""`lwd score`: schedules compared on one joint-time network and its map, none trained for."""

from lwd.stages.score.run import run
from lwd.stages.score.settings import ScoreConfig, ScoreSettings

__all__ = ["ScoreConfig", "ScoreSettings", "run"]
