"""The table of a sweep, as table.json has it; sweep and report read it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, FiniteFloat, NonNegativeFloat, NonNegativeInt, field_validator

from lwd.config import FolderName, Seed
from lwd.records import Record, read_record

TABLE = "table.json"


class Row(Record):
    """One probe's line, with the fields of `SweepRow`."""

    kinetic_weight: NonNegativeFloat
    seed: Seed
    distance_from_collapse: float
    mass: float
    collapsed: bool
    steps: NonNegativeInt
    stopped: Literal["collapsed", "settled"] | None
    folder: FolderName
    curve: dict[str, tuple[FiniteFloat, ...]]
    still: bool = False

    @field_validator("curve")
    @classmethod
    def _of_some_group(cls, curve: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        if not curve:
            raise ValueError("no group is learned")
        return curve


class Lambda(Record):
    """One lambda's line: the verdict of all its seeds together."""

    kinetic_weight: NonNegativeFloat
    disagreement: float | None = None


class CostRecord(Record):
    """The cost of the sweep; operations are counted by floats, of which there is no largest one in practice."""

    steps: NonNegativeInt
    planned: NonNegativeInt
    step_flops: NonNegativeFloat = 0.0
    main_flops: NonNegativeFloat | None = None
    share: float | None = None


class SweepTable(Record):
    """The content of table.json; ``points``: the global times of the rows' curves."""

    what: ClassVar[str] = "the table of a sweep"
    remedy: ClassVar[str] = "run `lwd sweep` again"

    rows: tuple[Row, ...] = Field(min_length=1)
    lambdas: tuple[Lambda, ...]
    collapsed_below: float
    mass_above: float
    points: tuple[float, ...]
    chosen: float | None
    cost: CostRecord


def read_table(path: Path) -> SweepTable:
    """Read table.json. Raises UserError where the file is no table."""
    return read_record(path, SweepTable)
