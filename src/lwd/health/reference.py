"""The losses of runs that went well, by step, to hold another run against: health/curves.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, PositiveInt

from lwd.files import read_json
from lwd.records import Record, as_record

CURVES = Path(__file__).with_name("curves.json")

MATCHING: Mapping[str, tuple[str, ...]] = {
    "": ("groups", "leader"),
    "data": ("flip",),
    "model": ("name", "num_classes", "depth", "width", "heads", "projector_width", "repa_block"),
    "encode": ("dataset", "texture", "semantic", "repa", "encoder_steps"),
    "train": (
        *("batch", "lr", "warmup_steps", "lr_schedule", "init_from", "freeze", "lora"),
        *(
            "corrected",
            "time_distribution",
            "local_times",
            "draw",
            "times",
            "reduction",
            "cosine_weight",
            "repa_weight",
        ),
        "label_dropout",
    ),
}
"""What of a config.yaml, section by section, decides the loss by step; and the kind of the schedule, and the number of
steps where the learning rate falls over all of them."""


class Curve(Record):
    """A run's ``loss``: means over every ``every`` steps, in order; ``name`` and ``made`` say what it is and how it
    came about; ``match``: its `signature`."""

    name: str = Field(max_length=200)
    made: str
    match: dict[str, Any]
    every: PositiveInt
    loss: tuple[float, ...]


class Curves(Record):
    """The file."""

    what: ClassVar[str] = "the losses of reference runs"
    remedy: ClassVar[str] = "install lwd again"

    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Reference:
    """The loss by step of a run that went well, ``name``."""

    name: str
    every: int
    loss: Sequence[float]

    def mean(self, first: int, last: int) -> float | None:
        """Over the steps from ``first`` up to ``last``, roughly; None beyond the run's end."""
        start, end = first // self.every, max(first // self.every + 1, last // self.every)
        if first >= self.every * len(self.loss):
            return None
        part = self.loss[start:end]
        return sum(part) / len(part)


def signature(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a run's loss by step, of the config that it left: values by dotted key."""
    found: dict[str, Any] = {}
    for section, keys in MATCHING.items():
        values = config.get(section) if section else config
        for key in keys:
            found[f"{section}.{key}".lstrip(".")] = values.get(key) if isinstance(values, Mapping) else None
    train = config.get("train")
    train = train if isinstance(train, Mapping) else {}
    falls = train.get("lr_schedule", "constant") != "constant"
    found["train.steps"] = train.get("steps") if falls else None
    schedule = train.get("schedule")
    found["train.schedule.kind"] = schedule.get("kind") if isinstance(schedule, Mapping) else None
    return found


def reference_for(config: Mapping[str, Any]) -> Reference | None:
    """The reference run of the same network, data and objective; None where there is none."""
    own = signature(config)
    for curve in as_record(read_json(CURVES), Curves, str(CURVES)).curves:
        if _holds(own, curve.match):
            return Reference(curve.name, curve.every, curve.loss)
    return None


def _holds(own: Any, wanted: Any) -> bool:
    """Whether all that a curve was made with stands in a config, which may have younger keys, too."""
    if not isinstance(wanted, Mapping):
        return bool(own == wanted)
    return isinstance(own, Mapping) and all(key in own and _holds(own[key], value) for key, value in wanted.items())
