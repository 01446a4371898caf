"""The settings of `lwd evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from lwd.config import Batch, Config
from lwd.metrics.precision_recall import Distances
from lwd.run import RunConfig
from lwd.runtime.compute import ComputeConfig

Metric = Literal[
    "fid",
    "sfid",
    "inception_score",
    "precision",
    "recall",
    "kid",
    "density",
    "coverage",
    "fd_dinov2",
    "frechet",
    "frechet_real",
    "accuracy",
]
Features = Literal["inception", "dinov2", "judge"]

PAPER: tuple[Metric, ...] = ("fid", "sfid", "inception_score", "precision", "recall")
JUDGED: tuple[Metric, ...] = ("frechet", "frechet_real", "accuracy")
"""Of built-in data sets, whose images are too small for Inception: in the features of the classifier beside them."""


def features_of(metric: Metric) -> Features:
    """The network whose features a metric is made of."""
    return "judge" if metric in JUDGED else "dinov2" if metric == "fd_dinov2" else "inception"


class EvaluateSettings(Config):
    """What is compared with what, by which metrics."""

    samples: Path | None = None
    """A folder of `lwd sample`, an npz, a folder of pictures, or saved features; None: the only folder under
    OUTPUT/samples."""
    reference: Path | None = None
    """The same, or ADM's reference batch, or saved statistics; None: the experiment's held-out images."""
    metrics: tuple[Metric, ...] | None = None
    """None: the papers' five with a reference, else `JUDGED`."""
    weights: Path | None = None
    """Of Inception; None: the published file in torch.hub's cache."""
    download: bool = False
    """Fetch the published file where it is not there."""
    allow_other_weights: bool = False
    """Go on under weights of Inception that are not the published ones; the result says so."""
    dinov2: Path | None = None
    """A folder with ``facebook/dinov2-large`` (config.json, model.safetensors), for ``fd_dinov2``."""
    batch: Batch = 64
    """Images that a network sees at once; the numbers are those of this batch, on any number of processes."""
    cache: Path | None = None
    """A folder in which the features of both sides are kept, and found again."""
    out: Path | None = None
    """Where the result goes; None: evaluation.json beside the samples."""
    save_statistics: Path | None = None
    """Keep mean and covariance of the samples' features in this file, as a reference for later."""
    save_features: Path | None = None
    """Keep the features themselves too, which precision, recall and KID need."""
    k: PositiveInt = 3
    """Neighbours of precision and recall."""
    density_k: PositiveInt = 5
    """Neighbours of density and coverage."""
    distances: Distances = "exact"
    """Between features, for precision and its kin: exact, or in half precision as ADM's evaluator has them."""
    split_size: PositiveInt = 5000
    """Images per split of the Inception Score."""
    kid_subsets: PositiveInt = 100
    """Pairs of random subsets over which KID is averaged."""
    kid_subset_size: PositiveInt = 1000
    """Images of each."""
    bootstrap: NonNegativeInt = 1000
    """Replicates behind the intervals, 2 or more; 0: no intervals."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Of the bootstrap's intervals."""
    counts: NonNegativeInt = 4
    """Fréchet distances at so many sample counts, each half the one before, and their extrapolation, which
    needs 3; 0: none."""
    seed: int = Field(default=0, ge=0, lt=2**62)
    """Of KID's subsets, of the replicates, and of the halves."""

    @model_validator(mode="after")
    def _metrics_go_together(self) -> Self:
        if self.metrics == () or len(set(self.metrics or ())) < len(self.metrics or ()):
            raise ValueError(f"metrics: {list(self.metrics or ())} must name at least one, each once")
        if self.bootstrap == 1:
            raise ValueError("bootstrap: an interval needs at least 2 replicates (0: no intervals)")
        if self.distances == "adm-float16" and {"density", "coverage"} & set(self.metrics or ()):
            raise ValueError("distances: ADM's float16 distances are for precision and recall, not density or coverage")
        return self


class EvaluateConfig(RunConfig):
    """Everything `run` reads of an experiment."""

    evaluate: EvaluateSettings = EvaluateSettings()


class EvaluateOnly(Config):
    """The same for files that belong to no experiment."""

    evaluate: EvaluateSettings = EvaluateSettings()
    compute: ComputeConfig = ComputeConfig()
