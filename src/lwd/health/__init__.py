"""Is a run healthy? A first look at its data and its network, and the losses of runs that were."""

from lwd.health.finding import Finding, table
from lwd.health.first_step import look_at_step, zero_loss
from lwd.health.latents import copies, labelled, look_at, standardised
from lwd.health.look import TITLE, due, first_look

__all__ = [
    "TITLE",
    "Finding",
    "copies",
    "due",
    "first_look",
    "labelled",
    "look_at",
    "look_at_step",
    "standardised",
    "table",
    "zero_loss",
]
