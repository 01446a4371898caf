"""Distances of a joint-time network's samples under several schedules, from the same noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.evaluation.extraction import FeatureCache
from lwd.evaluation.features import FeatureSet
from lwd.metrics.influence import frechet_influence
from lwd.metrics.moments import Gaussian
from lwd.runtime.progress import say
from lwd.schedules import Schedule
from lwd.schedules.choice import ScheduleChoice
from lwd.stages import evaluate, sample
from lwd.stages.experiment import Experiment


@dataclass(frozen=True)
class Distance:
    """The Fréchet distance to held-out images, how much more than the first schedule's, and that difference's paired
    standard error over samples; ``nfe``: mean evaluations of a sample; ``heun``: with so many steps of Heun's method.
    """

    value: float
    more: float
    error: float
    nfe: float
    heun: dict[str, float] = field(default_factory=dict)


def distances(config: Experiment, schedules: dict[str, Schedule]) -> dict[str, Distance]:
    """Sample and measure each schedule in turn, unless that was done under the same config."""
    folder, found = config.output / "score", {}
    base: Tensor | None = None
    first = 0.0
    for name, schedule in schedules.items():
        path = folder / "drawn" / f"{schedule.hash()}.json"  # two names may be of one schedule
        schedule.save(path)
        value, nfe, influence = _one(config, path, schedule.hash(), config.sample.solver, config.sample.steps)
        base, first = (influence, value) if base is None else (base, first)
        error = float((influence - base).std()) / math.sqrt(len(influence))
        heun = {str(n): _one(config, path, f"{schedule.hash()}-heun{n}", "heun", n)[0] for n in config.score.heun}
        found[name] = Distance(value, value - first, error, nfe, heun)
    return found


def _one(config: Experiment, schedule: Path, name: str, solver: str, steps: int) -> tuple[float, float, Tensor]:
    """Distance, mean evaluations, and each sample's influence on the distance (N,)."""
    folder = config.output / "samples" / f"score-{name}"
    sampling = config.sample.model_copy(
        update={
            "checkpoint": config.map.checkpoint or config.sample.checkpoint,
            "schedule": ScheduleChoice(kind="learned", path=schedule),
            "name": folder.name,
            "num": config.score.samples,
            "solver": solver,
            "steps": steps,
            "trace": 0,
        }
    )
    cache = config.output / "score" / "features"
    measuring = evaluate.EvaluateSettings(samples=folder, metrics=("frechet",), cache=cache, bootstrap=0, counts=0)
    one = config.model_copy(update={"sample": sampling, "evaluate": measuring})
    sample.run(one)
    record = evaluate.run(one)
    if record is None:
        raise UserError("score: distances are measured on one process")
    (extractor,) = record.extractors.values()
    kept = FeatureCache(cache, say)
    mine, real = (kept.find(extractor, source) for source in (record.samples, record.reference))
    if mine is None or real is None:
        raise UserError(f"{cache}: the features could not be kept there, of which the errors are made; make room")
    influence = frechet_influence(mine.features["pool"], _gaussian(mine), _gaussian(real))
    return record.metrics["frechet"], float(record.samples["nfe"]), influence


def _gaussian(side: FeatureSet) -> Gaussian:
    found = side.gaussian("pool", torch.device("cpu"))
    assert found is not None, "its features are kept"
    return found
