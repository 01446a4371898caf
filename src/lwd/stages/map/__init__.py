"""`lwd map`: a joint-time network's losses over all pairs of local times."""

from lwd.stages.map.run import MapConfig, MapSettings, open_network, run

__all__ = ["MapConfig", "MapSettings", "open_network", "run"]
