"""`lwd score`: schedules compared on one joint-time network and its map, none trained for."""

from lwd.stages.score.run import run

__all__ = ["run"]
