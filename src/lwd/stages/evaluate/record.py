"""The record of an evaluation, evaluation.json: every number, and what it is a number of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from lwd.data.evaluation import FORMAT, RESULT, read_evaluation
from lwd.errors import UserError
from lwd.evaluation.features import FeatureSet
from lwd.files import check_place, read_json, write_json
from lwd.runtime.checkpoint import versions
from lwd.stages.evaluate.measure import Measured
from lwd.stages.evaluate.settings import EvaluateSettings, Metric


def check_targets(settings: EvaluateSettings, out: Path | None, inputs: Sequence[Path]) -> None:
    """Raise UserError unless the record (``out``) and the files to save may be written, before anything is computed.

    A target is a new file, or one that an earlier `lwd evaluate` wrote and that is none of ``inputs``; the cache is a
    folder.
    """
    targets = {
        "evaluate.out": out,
        "evaluate.save_statistics": settings.save_statistics,
        "evaluate.save_features": settings.save_features,
    }
    taken = {path.resolve(): "what is to be read" for path in inputs}
    for key, path in targets.items():
        if path is None:
            continue
        check_place(path, f"{key}: {path}")
        if other := taken.get(path.resolve()):
            raise UserError(f"{key}: {path} is {other}, too; name another file")
        taken[path.resolve()] = f"the target of {key}"
        if key != "evaluate.out" and path.suffix != ".safetensors":
            raise UserError(f"{key}: {path} must end in .safetensors, by which it is known when read")
        written_here = is_record if key == "evaluate.out" else FeatureSet.is_saved
        if path.exists() and not written_here(path):
            raise UserError(f"{key}: {path} exists, and `lwd evaluate` did not write it; name another file")
    if settings.cache is not None:
        check_place(settings.cache / "file", f"evaluate.cache: {settings.cache}")


_ELSEWHERE = {"samples", "reference", "weights", "cache", "out", "save_statistics", "save_features", "dinov2"}
"""Settings that are paths: the hashes in the record say more."""


def is_record(path: Path) -> bool:
    """Whether a file is an evaluation.json of any version."""
    try:
        data = read_json(path)
    except UserError:
        return False
    return isinstance(data, dict) and str(data.get("format")).startswith(FORMAT.partition("/")[0])


@dataclass
class Evaluation:
    """``metrics`` by name, in the papers' order; both sides with path, count and hash; networks by name."""

    settings: Mapping[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, dict[str, Any]] = field(default_factory=dict)
    extrapolations: dict[str, dict[str, Any]] = field(default_factory=dict)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    samples: Mapping[str, Any] = field(default_factory=dict)
    reference: Mapping[str, Any] = field(default_factory=dict)
    extractors: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    path: Path | None = None

    @classmethod
    def begin(cls, settings: EvaluateSettings, metrics: tuple[Metric, ...]) -> Self:
        """Nothing measured yet."""
        return cls({**settings.model_dump(mode="json", exclude=_ELSEWHERE), "metrics": list(metrics)})

    def add(self, samples: FeatureSet, reference: FeatureSet, found: Measured, seconds: Mapping[str, float]) -> None:
        """What was measured under one network."""
        self.samples, self.reference = dict(samples.source), dict(reference.source)
        self.extractors[str(samples.extractor["name"])] = dict(samples.extractor)
        values = {**self.metrics, **found.values}
        self.metrics = {name: values[name] for name in self.settings["metrics"] if name in values}
        self.intervals |= found.intervals
        self.details |= found.details
        self.extrapolations |= {name: limit._asdict() for name, limit in found.extrapolations.items()}
        self.seconds |= {**seconds, **{name: round(value, 3) for name, value in found.seconds.items()}}

    def write(self, path: Path) -> None:
        """As JSON, atomically."""
        self.path = path
        write_json(
            path,
            {
                "format": FORMAT,
                "metrics": self.metrics,
                "intervals": self.intervals,
                "extrapolations": self.extrapolations,
                "details": self.details,
                "samples": self.samples,
                "reference": self.reference,
                "extractors": self.extractors,
                "settings": self.settings,
                "versions": versions(),
                "seconds": self.seconds,
            },
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Of a folder that holds evaluation.json, or of that file; raises UserError where it is none."""
        file = path / RESULT if path.is_dir() else path
        data = read_evaluation(file).model_dump(mode="json", exclude_unset=True)
        return cls(**{key.name: data[key.name] for key in fields(cls) if key.name != "path"}, path=file)
