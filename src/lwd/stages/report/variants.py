"""The compared variants: their order, their colours (the same in every figure) and the kind of schedule each has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from lwd.plots.theme import variant_colour
from lwd.run import RunConfig
from lwd.schedules import OffsetCurve
from lwd.schedules.choice import ScheduleChoice

KINDS = ("synchronous", "offset", "learned")


@dataclass(frozen=True)
class Variants:
    """``kinds``: variant -> kind of schedule, in the config's order; ``delta``: that of the offset variant.

    ``changes``: variant -> what it changes of the training settings, in words.
    """

    kinds: dict[str, str]
    delta: float
    changes: dict[str, str]

    def colour(self, name: str) -> str:
        """The colour of a variant, by its name in `lwd.plots.theme`."""
        known = list(self.kinds)
        return variant_colour(known.index(name) if name in known else len(known))

    def colour_of_kind(self, kind: str) -> str:
        """The colour of the first variant with this kind of schedule."""
        return self.colour(next((name for name, k in self.kinds.items() if k == kind), kind))

    def in_order(self, names: Iterable[str]) -> list[str]:
        """``names`` without repetition: the config's variants in its order, then the others."""
        found = list(dict.fromkeys(names))
        return [name for name in self.kinds if name in found] + [name for name in found if name not in self.kinds]

    def also(self, names: Iterable[str]) -> Variants:
        """With colours for variants that lie in the output folder but are not in the config."""
        extra = {name: "" for name in names if name not in self.kinds}
        return replace(self, kinds=self.kinds | extra)


def read_variants(config: RunConfig) -> Variants:
    """What ``compare`` says, where the config has it; every kind has a colour even where no variant has it."""
    variants: dict[str, dict[str, Any]] = getattr(getattr(config, "compare", None), "variants", {})
    choices = {name: ScheduleChoice.model_validate(changes.get("schedule", {})) for name, changes in variants.items()}
    kinds: dict[str, str] = {name: choice.kind for name, choice in choices.items()}
    deltas = [choice.delta for choice in choices.values() if choice.kind == "offset"]
    kinds |= {kind: kind for kind in KINDS if kind not in kinds.values()}
    changed = {name: "; ".join(_words(changes)) for name, changes in variants.items()}
    return Variants(kinds, deltas[0] if deltas else OffsetCurve().delta, changed)


def _words(settings: dict[str, Any]) -> list[str]:
    """Settings, however deep, as "schedule kind offset"; no and yes for false and true."""
    words = []
    for key, value in settings.items():
        name = key.replace("_", " ")
        if isinstance(value, dict):
            words += [f"{name} {inner}" for inner in _words(value)]
        else:
            shown = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value).replace("_", " ")
            words.append(f"{name} {shown}")
    return words
