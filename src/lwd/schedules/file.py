"""The content of schedule.json as a typed record."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt

from lwd.config import Seed
from lwd.records import Record, as_record


class Provenance(Record):
    """Where a schedule came from, as far as a report says it."""

    layout: tuple[dict[str, Any], ...] | None = None
    weight: float | None = Field(default=None, alias="lambda")
    seed: Seed | None = None
    steps: NonNegativeInt | None = None
    burn_in: NonNegativeInt | None = None
    stopped: Literal["collapsed", "settled"] | None = None
    distance_from_collapse: float | None = None
    origin: str | None = None


class ScheduleFile(Record):
    """The content of schedule.json; ``groups``: name -> curve, each with its kind."""

    what: ClassVar[str] = "a schedule file"
    remedy: ClassVar[str] = "one that `lwd probe` writes has format 'lwd.schedule/1'"

    format: Literal["lwd.schedule/1"]
    groups: dict[str, Any] = Field(min_length=1)
    hash: str | None = None
    provenance: Provenance = Provenance()


def read_file(data: Any, where: str) -> ScheduleFile:
    """Plain data as the content of schedule.json. Raises UserError, beginning with ``where``, for other data."""
    return as_record(data, ScheduleFile, where)
