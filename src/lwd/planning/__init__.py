"""What a run will take, before it begins: memory by part, measured without weights, and a card's time."""

from lwd.planning.activations import Kept, kept
from lwd.planning.cards import CARDS, LEAST_STEP_S, MFU, Card, Rate, card_of, rate_of, seconds
from lwd.planning.memory import Count, Estimate, Memory, Trained
from lwd.planning.shortage import shortage, shortage_on_gpu

__all__ = [
    "CARDS",
    "LEAST_STEP_S",
    "MFU",
    "Card",
    "Count",
    "Estimate",
    "Kept",
    "Memory",
    "Rate",
    "Trained",
    "card_of",
    "kept",
    "rate_of",
    "seconds",
    "shortage",
    "shortage_on_gpu",
]
