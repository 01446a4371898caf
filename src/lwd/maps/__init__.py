"""Maps of a joint-time network over pairs of local times, and what they say of any schedule without training it."""

from lwd.maps.dynamics import learned_on
from lwd.maps.information import coupling, mutual_information, noise_errors
from lwd.maps.lines import Line, line, line_loss, nats
from lwd.maps.measure import measure, measure_line
from lwd.maps.table import LogSNR, Map, Table, log_snr

__all__ = [
    "Line",
    "LogSNR",
    "Map",
    "Table",
    "coupling",
    "learned_on",
    "line",
    "line_loss",
    "log_snr",
    "measure",
    "measure_line",
    "mutual_information",
    "nats",
    "noise_errors",
]
