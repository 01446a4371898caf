"""The metrics by name, from the features of both sides, with what each image contributes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.evaluation.distance import classified_right, frechet_between
from lwd.evaluation.features import FeatureSet
from lwd.metrics.inception_score import inception_score, score_in_random_order
from lwd.metrics.influence import frechet_influence, inception_influence, kernel_influence
from lwd.metrics.intervals import Extrapolation, bootstrap_interval, extrapolate
from lwd.metrics.kid import kernel_distance
from lwd.metrics.precision_recall import manifold_metrics
from lwd.stages.evaluate.settings import EvaluateSettings, Metric

_FRECHET: dict[Metric, str] = {"fid": "pool", "sfid": "spatial", "fd_dinov2": "pool", "frechet": "pool"}
_MANIFOLD: tuple[Metric, ...] = ("precision", "recall", "density", "coverage")
_ANCHORS = 2000
"""Images of each side against which each sample's part in KID is taken."""


@dataclass
class Measured:
    """Values by metric; intervals, and extrapolations of Fréchet distances, where they were asked for."""

    values: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, dict[str, Any]] = field(default_factory=dict)
    extrapolations: dict[str, Extrapolation] = field(default_factory=dict)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of Fréchet distances whose ``statistics`` they are, by side; of KID the ``subset_deviation``; of the Inception
    Score its ``splits``, the size of the ``last_split``, and of several the score ``in_random_order``."""
    seconds: dict[str, float] = field(default_factory=dict)


class Measurement:
    """Both sides' features, and the metrics asked of them; what cannot be had is said and left out."""

    def __init__(
        self,
        samples: FeatureSet,
        reference: FeatureSet,
        settings: EvaluateSettings,
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        self._samples, self._reference, self._settings = samples, reference, settings
        self._device, self._say = device, say
        self.result = Measured()

    def run(self, metrics: Iterable[Metric]) -> Measured:
        """Raises UserError where the sides do not go together."""
        wanted = list(metrics)
        try:
            for metric in wanted:
                started = time.perf_counter()
                if metric in _FRECHET:
                    self._frechet(metric, _FRECHET[metric])
                elif metric == "inception_score":
                    self._inception_score()
                elif metric == "kid":
                    self._kid()
                elif metric == "accuracy":
                    self._accuracy()
                if metric not in _MANIFOLD:
                    self.result.seconds[metric] = time.perf_counter() - started
            if asked := [metric for metric in _MANIFOLD if metric in wanted]:
                started = time.perf_counter()
                self._manifold(asked)
                self.result.seconds["neighbours"] = time.perf_counter() - started
        except ValueError as error:
            raise UserError(f"{self._samples.name} against {self._reference.name}: {error}") from error
        self.result.values = {metric: self.result.values[metric] for metric in wanted if metric in self.result.values}
        return self.result

    def _frechet(self, metric: Metric, kind: str) -> None:
        found = frechet_between(self._samples, self._reference, kind, self._device)
        if found is None:
            return self._leave_out(metric, kind)
        value, ours, theirs = found
        origins = {"samples": self._samples.origin(kind), "reference": self._reference.origin(kind)}
        self.result.details[metric] = {"statistics": origins}
        features, settings = self._samples.features.get(kind), self._settings
        if features is not None:
            self.result.details[metric]["samples_per_feature"] = len(features) / features.shape[1]
        if features is None or kind in self._samples.stored:  # no image is known to be behind stored statistics
            self.result.values[metric] = value
            return None
        influence = None
        if settings.bootstrap:
            influence = frechet_influence(features, ours, theirs)
        error = self._set(metric, value, influence, "samples")
        if settings.counts and kind == "pool":
            limit = extrapolate(features, theirs, settings.counts, error, settings.seed, self._device)
            if limit is None:
                self._say(
                    f"{metric}: no limit of infinitely many samples: that takes three counts and 8 samples per feature"
                )
            else:
                self.result.extrapolations[metric] = limit
        return None

    def _inception_score(self) -> None:
        logits, split = self._samples.features.get("logits"), self._settings.split_size
        if logits is None:
            return self._leave_out("inception_score", "logits")
        influence = inception_influence(logits, split) if self._settings.bootstrap else None
        self.result.details["inception_score"] = _splits(logits, split, self._settings.seed)
        self._set("inception_score", inception_score(logits, split), influence, "samples")
        return None

    def _manifold(self, asked: list[Metric]) -> None:
        settings, pair = self._settings, self._pools()
        if pair is None:
            for metric in asked:
                self._leave_out(metric, "pool")
            return
        reference, samples = pair
        density_k = settings.density_k if {"density", "coverage"} & set(asked) else None
        found = manifold_metrics(reference, samples, settings.k, density_k, settings.distances)
        each: dict[Metric, tuple[Tensor | None, Literal["samples", "reference"]]] = {
            "precision": (found.precise, "samples"),
            "recall": (found.recalled, "reference"),
            "density": (None if found.balls is None else found.balls.double() / settings.density_k, "samples"),
            "coverage": (found.covered, "reference"),
        }
        for metric in asked:
            values, over = each[metric]
            assert values is not None, metric
            mean = values.double().mean()
            self._set(metric, float(mean), values.double() - mean, over)

    def _kid(self) -> None:
        pair = self._pools()
        if pair is None:
            return self._leave_out("kid", "pool")
        reference, samples = pair
        settings = self._settings
        found = kernel_distance(reference, samples, settings.kid_subsets, settings.kid_subset_size, settings.seed)
        influence = None
        if settings.bootstrap:
            spread = [torch.linspace(0, len(x) - 1, min(_ANCHORS, len(x))).long() for x in (samples, reference)]
            influence = kernel_influence(reference, samples, *spread)
        self.result.details["kid"] = {"subset_deviation": found.deviation}
        self._set("kid", found.value, influence, "samples", found.deviation / settings.kid_subsets**0.5)
        return None

    def _accuracy(self) -> None:
        """The share of samples that show the class asked for; of unconditional ones there is none."""
        right = classified_right(self._samples)
        if right is not None:
            self._set("accuracy", float(right.mean()), right - right.mean(), "samples")

    def _pools(self) -> tuple[Tensor, Tensor] | None:
        reference, samples = self._reference.features.get("pool"), self._samples.features.get("pool")
        if reference is None or samples is None:
            return None
        return reference.to(self._device), samples.to(self._device)

    def _set(
        self, metric: Metric, value: float, influence: Tensor | None, over: str, extra: float = 0.0
    ) -> float | None:
        """Record a value, with its interval where replicates are asked for; returns the standard error, if known."""
        self.result.values[metric] = value
        settings = self._settings
        if influence is None or not settings.bootstrap:
            return None
        interval = bootstrap_interval(value, influence, settings.bootstrap, settings.confidence, settings.seed, extra)
        self.result.intervals[metric] = {**interval._asdict(), "over": over}
        return interval.standard_error

    def _leave_out(self, metric: Metric, kind: str) -> None:
        lacking = next(s for s in (self._samples, self._reference) if kind not in s.features)
        self._say(f"{metric}: left out, {lacking.name} holds no {kind} features (statistics alone, perhaps)")


def _splits(logits: Tensor, size: int, seed: int) -> dict[str, Any]:
    """What the Inception Score owes to where its splits fall."""
    count = -(-len(logits) // size)
    found: dict[str, Any] = {"splits": count, "last_split": len(logits) - (count - 1) * size}
    if count > 1:
        found["in_random_order"] = score_in_random_order(logits, size, seed)._asdict()
    return found
