"""The format of evaluation.json, which `lwd evaluate` writes; evaluation and report read it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt

from lwd.records import Record, read_record

RESULT = "evaluation.json"
FORMAT = "lwd.evaluation/1"


class IntervalRecord(Record):
    """A confidence interval."""

    low: float
    high: float


class Limit(Record):
    """Values at several sample counts, and what they tend to."""

    counts: tuple[NonNegativeInt, ...]
    values: tuple[float, ...]
    infinity: float
    standard_error: float | None


class Details(Record):
    """Details of a value: by side, whose ``statistics`` it was computed from."""

    samples_per_feature: float = 1.0
    statistics: dict[str, str] = Field(default_factory=dict)


class Side(Record):
    """One side of a comparison: the samples, or their reference."""

    path: str | None = None
    count: NonNegativeInt | None = None
    sha256: str | None = None
    nfe: float | None = None


class Network(Record):
    """The network whose features were compared."""

    published_weights: bool = False
    weights_sha256: str = ""


class Settings(Record):
    """The settings that decided the values."""

    confidence: float = 0.95


class EvaluationRecord(Record):
    """The content of evaluation.json, each mapping by metric or by network."""

    what: ClassVar[str] = "a record of `lwd evaluate`"
    remedy: ClassVar[str] = "evaluate again"

    format: Literal["lwd.evaluation/1"]
    metrics: dict[str, float]
    intervals: dict[str, IntervalRecord]
    extrapolations: dict[str, Limit]
    details: dict[str, Details]
    samples: Side
    reference: Side
    extractors: dict[str, Network]
    settings: Settings
    seconds: dict[str, float]


def read_evaluation(path: Path) -> EvaluationRecord:
    """Read evaluation.json. Raises UserError where the file is no evaluation."""
    return read_record(path, EvaluationRecord)
