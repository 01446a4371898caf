"""Samples of the averaged network while it trains, measured as `lwd sample` and `lwd evaluate` would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lwd.console import complain
from lwd.data.encoded import MANIFEST, read_manifest
from lwd.data.stats import Statistics
from lwd.encoders.decoder import decode_rgb, load_decoder
from lwd.errors import UserError
from lwd.evaluation.distance import classified_right, frechet_between
from lwd.evaluation.extraction import FEATURES, extract
from lwd.evaluation.extractors import DinoExtractor, Extractor, InceptionExtractor, JudgeExtractor
from lwd.evaluation.features import FeatureSet
from lwd.evaluation.images import RealImages
from lwd.models import record_of
from lwd.run import RunConfig
from lwd.runtime.processes import Processes
from lwd.runtime.progress import forwarding
from lwd.runtime.sharding import check_gathered, gathered
from lwd.sample import generate
from lwd.sample.numbered import labels_of, seeds_of
from lwd.schedules import Schedule
from lwd.stages.train.sampled_settings import SampledSettings
from lwd.stages.train.settings import TrainConfig
from lwd.training.log_file import SAMPLED
from lwd.training.previews import reason

SECTION = "train.evaluate"
_DISTANCE = {"classifier": "frechet", "inception": "fid", "dinov2": "fd_dinov2"}
"""What `lwd evaluate` calls the Fréchet distance in these features."""


class Sampled:
    """Measures samples of a network under ``schedule``, shared out over the processes in batches of fixed composition;
    ``statistics``: by which the latents that it was trained on are standardised.

    Making one looks at everything that it needs but the network. Raises UserError where that does not go together.
    """

    def __init__(
        self,
        config: RunConfig,
        settings: SampledSettings,
        schedule: Schedule,
        statistics: Statistics,
        processes: Processes,
    ) -> None:
        self._statistics = statistics
        self._config, self._settings, self._schedule, self._processes = config, settings, schedule, processes
        data = config.data_path
        if config.compute.shard:
            check_gathered()
        if not (data / MANIFEST).is_file():
            raise UserError(
                f"train.evaluate_every: {data} has no {MANIFEST}, so nothing decodes samples; encode images with "
                "`lwd encode`, or set it to 0"
            )
        if settings.features == "classifier" and read_manifest(data).judge is None:
            raise UserError(
                f"{SECTION}.features: {data} was encoded without a classifier; encode labelled images with "
                f"encode.judge=true, or set {SECTION}.features=inception or dinov2"
            )
        self._extractor = _extractor(config, settings, processes.device)
        self._real = RealImages(config, "heldout")
        self._decoder = load_decoder(data, processes.device)
        self._reference: FeatureSet | None = None
        self._black = torch.empty(0)

    def prepare(self) -> None:
        """Take the held-out images' features, or find them in OUTPUT/features, where `lwd evaluate` keeps its own."""
        cache = self._config.output / FEATURES
        self._black = torch.zeros_like(self._real.read(torch.zeros(1, dtype=torch.int64)))
        self._reference = extract(self._real, self._extractor, self._settings.batch, self._processes, cache)

    def measure(self, average: nn.Module) -> dict[str, Tensor]:
        """``sampled_frechet`` (``_fid``, ``_fd_dinov2``) and, by a classifier, ``sampled_accuracy``: scalars, the same
        on each process; on all of them nothing, and a line on stderr from one, where that fails on any."""
        failures: list[str] = []
        images = _Drawn(average, self._settings, self._draw, self._black, failures)
        extractor, values = _Tolerant(self._extractor, failures), torch.zeros(2, dtype=torch.float64)
        with gathered(average), forwarding(lambda count: None):  # processes draw different numbers of batches
            try:
                found = extract(images, extractor, self._settings.batch, self._processes, None)
                if found is not None and not failures:
                    values = self._values(found)
            except (UserError, ValueError) as error:  # on the main process, after the last exchange with the others
                failures.append(reason(error))
        first = self._processes.first_where(bool(failures))
        if first is not None:
            if first == self._processes.rank:
                complain(f"train.evaluate_every: not measured ({failures[0]}); the run goes on")
            return {}
        distance, accuracy = self._processes.mean(values.to(self._processes.device)) * self._processes.world
        named = {f"{SAMPLED}{_DISTANCE[self._settings.features]}": distance}
        return named | ({f"{SAMPLED}accuracy": accuracy} if self._settings.features == "classifier" else {})

    def _values(self, found: FeatureSet) -> Tensor:
        """Distance and accuracy (2,), on the main process."""
        assert self._reference is not None
        compared = frechet_between(found, self._reference, "pool", self._processes.device)
        assert compared is not None
        right = classified_right(found) if self._settings.features == "classifier" else None
        return torch.tensor([compared[0], 0.0 if right is None else float(right.mean())], dtype=torch.float64)

    def _draw(self, model: nn.Module, labels: Tensor, seeds: Tensor, rows: Tensor) -> Tensor:
        """labels, seeds (n,) of the samples ``rows`` (n,) -> uint8 (n, 3, H, W)."""
        s, layout = self._settings, self._config.layout
        arguments = (model, self._schedule, layout, labels, seeds, record_of(model).sample_shape)
        with self._processes.autocast():
            latents = generate(*arguments, solver=s.solver, steps=s.steps, batch=s.batch).latents
        return decode_rgb(self._decoder, self._statistics.destandardise(latents), layout, rows)


def check_sampled(config: TrainConfig, statistics: Statistics | None) -> None:
    """Raise UserError where ``train.evaluate_every`` could never work; ``statistics`` None: there is no data yet, and
    only the networks of others are looked for."""
    if not config.train.evaluate_every:
        return
    settings, processes = config.train.evaluate, Processes(config.compute)
    if statistics is not None:
        Sampled(config, settings, Schedule.synchronous(config.layout.names), statistics, processes)
    elif settings.features != "classifier":
        _extractor(config, settings, processes.device)


def _extractor(config: RunConfig, settings: SampledSettings, device: torch.device) -> Extractor:
    """Raises UserError where its weights are not there."""
    if settings.features == "inception":
        return InceptionExtractor(settings.weights, device, allow_other=settings.allow_other_weights, section=SECTION)
    if settings.features == "dinov2":
        return DinoExtractor(settings.dinov2, device, SECTION)
    return JudgeExtractor(config.data_path, device)


def sampled_of(config: TrainConfig, schedule: Schedule, statistics: Statistics, processes: Processes) -> Sampled | None:
    """What ``train.evaluate_every`` asks for, ready to measure; None: nothing.

    Raises UserError where it could never work.
    """
    if not config.train.evaluate_every:
        return None
    sampled = Sampled(config, config.train.evaluate, schedule, statistics, processes)
    sampled.prepare()
    return sampled


class _Drawn:
    """The samples as `lwd.evaluation.images.Images`, drawn as they are read; black where that fails: the other
    processes wait for these images. ``failures`` gets the reason."""

    name = "samples"
    facts: Mapping[str, Any] = {}

    def __init__(
        self,
        model: nn.Module,
        settings: SampledSettings,
        draw: Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor],
        black: Tensor,
        failures: list[str],
    ) -> None:
        self._model, self._draw, self._black, self._failures = model, draw, black, failures
        count = settings.samples
        self._seeds, self._labels = seeds_of(settings.seed, count), labels_of("balanced", count, model)
        self.labels: Tensor | None = self._labels

    def __len__(self) -> int:
        return len(self._labels)

    @torch.no_grad()
    def read(self, rows: Tensor) -> Tensor:
        """rows (n,) -> uint8 (n, 3, H, W)."""
        try:
            return self._draw(self._model, self._labels[rows], self._seeds[rows], rows)
        except Exception as error:  # noqa: BLE001 - weeks are at stake
            self._failures.append(reason(error))
            return self._black.expand(len(rows), -1, -1, -1)

    def fingerprint(self) -> str:
        """Nothing is kept of them, so nothing is looked up by it."""
        return ""


class _Tolerant:
    """An `Extractor` that gives zeros where another one fails, for the same reason; ``failures`` gets it."""

    def __init__(self, extractor: Extractor, failures: list[str]) -> None:
        self.name, self.identity, self.widths = extractor.name, extractor.identity, extractor.widths
        self._extractor, self._failures = extractor, failures

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """See `Extractor`."""
        try:
            return self._extractor(images)
        except Exception as error:  # noqa: BLE001 - as above
            self._failures.append(reason(error))
            return {name: torch.zeros(len(images), width, device=images.device) for name, width in self.widths.items()}
