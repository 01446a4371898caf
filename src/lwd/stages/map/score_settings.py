"""The settings of `lwd score`, which reads what `lwd map` leaves."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from lwd.config import Config
from lwd.schedules.choice import ScheduleChoice

Criterion = Literal["loss", "nats", "distance", "paper"]
NAMES = ("synchronous", "offset:0.3", "offset:-0.3", "power:2", "power:5", "power:-2")


class ScoreSettings(Config):
    """Which schedules are scored, and by what."""

    schedules: tuple[ScheduleChoice, ...] = tuple(map(ScheduleChoice.model_validate, NAMES))
    """Names (synchronous, offset:0.3, power:2, ...) or files; the first is what the others are compared with."""
    kinetic_weights: tuple[PositiveFloat, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    """Lambdas at which Algorithm 1 is followed on the map."""
    nodes: int = Field(default=33, ge=3, le=2000)
    """Of each schedule's line, at which the network is measured."""
    samples: NonNegativeInt = 0
    """Drawn under each schedule from the same noise, for their Fréchet distance; 0: none."""
    heun: tuple[PositiveInt, ...] = ()
    """Also with so many Heun steps, e.g. [8, 16]: what the solver adds to the distance."""
    suggest: Criterion | None = None
    """Write OUTPUT/score/suggested.json: the best by the held-out loss L, by nats J, by distance, or by the paper's
    rule on the map (the weakest stable lambda)."""

    @field_validator("schedules")
    @classmethod
    def _some_and_different(cls, schedules: tuple[ScheduleChoice, ...]) -> tuple[ScheduleChoice, ...]:
        names = list(map(str, schedules))
        if not names or len(set(names)) < len(names):
            raise ValueError(f"schedules {names} must name at least one, each once")
        return schedules
