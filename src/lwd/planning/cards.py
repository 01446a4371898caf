"""What is known of a graphics card, and what is assumed of it: rates are data sheets', the share and the price ours."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from lwd.errors import UserError
from lwd.runtime.compute import ComputeConfig

MFU = 0.4
"""The assumed share of a card's nominal rate that training reaches (model operations, recomputation not counted)."""

LEAST_STEP_S = 0.01
"""The assumed least time of a training step, in seconds: launching its kernels takes that long for small networks."""

Rate = Literal["bf16", "tf32", "float32"]


@dataclass(frozen=True)
class Card:
    """``memory_gib``: what PyTorch can use of it, about; ``tflops``: dense nominal rates of matrix products in 1e12
    operations a second by type, of the makers' data sheets; ``price``: an assumed rent in US dollars an hour."""

    name: str
    memory_gib: float
    tflops: dict[Rate, float]
    price: float


CARDS = {
    card.name: card
    for card in (
        Card("A100", 79.2, {"bf16": 312, "tf32": 156, "float32": 19.5}, 1.5),
        Card("H100", 79.2, {"bf16": 989, "tf32": 495, "float32": 67}, 2.5),
        Card("H200", 139.8, {"bf16": 989, "tf32": 495, "float32": 67}, 3.5),
        Card("B200", 178.0, {"bf16": 2250, "tf32": 1125, "float32": 75}, 5.0),
        Card("4090", 23.5, {"bf16": 165, "tf32": 82.6, "float32": 82.6}, 0.5),
    )
}
"""The A100 has 80 GB, the H100 is the SXM card, the 4090 rates are those with float32 sums."""


def card_of(name: str) -> Card:
    """A card by its name, in capitals or not. Raises UserError for one that is not known."""
    found = {known.lower(): card for known, card in CARDS.items()}.get(name.lower())
    if found is None:
        near = get_close_matches(name.upper(), CARDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(CARDS)}"
        raise UserError(
            f"--card {name}: no card of that name is known; {hint} (of another: --tflops, --memory, --price)"
        )
    return found


def rate_of(compute: ComputeConfig) -> Rate:
    """The type in which a run's matrix products are computed on a GPU."""
    return "bf16" if compute.precision == "bf16" else "tf32" if compute.tf32 else "float32"


def seconds(operations: float, tflops: float, share: float, cards: int) -> float:
    """How long ``operations`` take on ``cards`` cards that reach ``share`` of ``tflops`` (1e12 a second) each."""
    return operations / (1e12 * tflops * share * cards)
