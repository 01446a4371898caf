"""`lwd evaluate`: samples against a reference, for an experiment or for files alone, on any number of processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lwd.data.encoded import MANIFEST
from lwd.data.evaluation import RESULT
from lwd.data.samples import INFO
from lwd.errors import UserError
from lwd.evaluation.extraction import FEATURES
from lwd.evaluation.extractors import DinoExtractor, Extractor, InceptionExtractor, JudgeExtractor
from lwd.evaluation.features import FeatureSet
from lwd.evaluation.images import Images, RealImages
from lwd.runtime.preemption import InTime
from lwd.runtime.processes import Processes
from lwd.stages.evaluate.inputs import Material, open_material
from lwd.stages.evaluate.measure import Measurement
from lwd.stages.evaluate.record import Evaluation, check_targets
from lwd.stages.evaluate.settings import (
    JUDGED,
    PAPER,
    EvaluateConfig,
    EvaluateOnly,
    EvaluateSettings,
    Features,
    Metric,
    features_of,
)


def run(
    config: EvaluateConfig | EvaluateOnly,
    images: Images | None = None,
    on_measured: Callable[[Evaluation], None] = lambda record: None,
) -> Evaluation | None:
    """Evaluate, and write the record beside the samples (``evaluate.out``); None on all processes but the main.

    ``images`` stands for ``evaluate.samples``, e.g. a checkpoint's samples as they are made. With no reference the
    experiment's held-out images are one. ``on_measured`` is called with the record before anything is written, for a
    disk that fills meanwhile. Raises UserError for input that does not fit.
    """
    settings, processes = config.evaluate, Processes(config.compute)
    job = _Job(config, processes, _samples(config, images))
    metrics = settings.metrics or (JUDGED if settings.reference is None else PAPER)
    networks = list(dict.fromkeys(features_of(metric) for metric in metrics))
    out, reference = _out(config, job.samples), job.reference()
    check_targets(settings, out, _inputs(settings, job.samples, reference))
    _check_neighbours(settings, metrics, job.samples, reference)
    record = Evaluation.begin(settings, metrics)
    kept = None
    for name in networks:
        samples = _measure(job, name, [m for m in metrics if features_of(m) == name], reference, record)
        kept = samples if name == "inception" else kept
    if not processes.is_main:
        return None
    on_measured(record)
    record.write(out)
    _keep(job, kept)
    return record


def save_only(config: EvaluateOnly, images: Images | None = None) -> None:
    """Features and statistics of the samples into the files named, under Inception; no reference, no metrics."""
    job = _Job(config, Processes(config.compute), _samples(config, images))
    check_targets(config.evaluate, None, _inputs(config.evaluate, job.samples))
    extractor = job.extractor("inception")
    _keep(job, job.features(job.samples, extractor, config.evaluate.cache))


@dataclass
class _Job:
    config: EvaluateConfig | EvaluateOnly
    processes: Processes
    samples: Material
    seconds: dict[str, float] = field(default_factory=dict)
    in_time: InTime = field(init=False)

    def __post_init__(self) -> None:
        self.in_time = self.processes.in_time()

    @property
    def settings(self) -> EvaluateSettings:
        return self.config.evaluate

    def reference(self) -> Material:
        if self.settings.reference is not None:
            return open_material(self.settings.reference)
        return self.real("heldout")

    def real(self, split: str) -> Material:
        """The real images of an experiment."""
        config = self.config
        if not isinstance(config, EvaluateConfig):
            raise UserError("no reference: name one with --reference, or an experiment with --config")
        if not (config.data_path / MANIFEST).is_file():
            raise UserError(f"{config.data_path}: no encoded data to compare with; name a reference with --reference")
        return Material(config.data_path / split, RealImages(config, split))

    def extractor(self, name: str) -> Extractor:
        config, device = self.config, self.processes.device
        if name == "inception":
            s = self.settings
            return InceptionExtractor(s.weights, device, s.download, s.allow_other_weights)
        if name == "dinov2":
            return DinoExtractor(self.settings.dinov2, device)
        if not isinstance(config, EvaluateConfig):
            raise UserError("evaluate.metrics: frechet and accuracy are the judge's: name the experiment with --config")
        return JudgeExtractor(config.data_path, device)

    def features(self, material: Material, extractor: Extractor, cache: Path | None) -> FeatureSet | None:
        """On the main process. The time limit is looked at between two sets, where what is done is kept."""
        self.in_time.end(str(material.path))
        with _timed(self.seconds, f"{extractor.name} features of {material.path}"):
            found = material.features(extractor, self.settings.batch, self.processes, cache)
        if cache is not None:
            self.in_time.leave()
        return found

    def real_cache(self) -> Path | None:
        """Real images' features are kept in any case: every set of samples is compared with them."""
        config = self.config
        return self.settings.cache or (config.output / FEATURES if isinstance(config, EvaluateConfig) else None)


def _measure(
    job: _Job, name: Features, metrics: list[Metric], reference: Material, record: Evaluation
) -> FeatureSet | None:
    """Into the record what one network says; returns the samples' features, None on all processes but the main."""
    settings, processes = job.settings, job.processes
    extractor = job.extractor(name)
    samples = job.features(job.samples, extractor, settings.cache)
    built_in = settings.reference is None
    theirs = job.features(reference, extractor, job.real_cache() if built_in else settings.cache)
    train = None
    if "frechet_real" in metrics:
        train = job.features(job.real("train"), extractor, job.real_cache())
    if samples is None or theirs is None:
        return None
    if name == "inception":
        _check_kept(settings, samples)
    asked = [metric for metric in metrics if metric != "frechet_real"]
    found = Measurement(samples, theirs, settings, processes.device, processes.say).run(asked)
    if train is not None:
        found.values["frechet_real"] = _floor(train, theirs, job)
    record.add(samples, theirs, found, job.seconds)
    return samples


def _floor(train: FeatureSet, heldout: FeatureSet, job: _Job) -> float:
    """What a perfect generator would be near: the distance of the training images."""
    plain = job.settings.model_copy(update={"bootstrap": 0, "counts": 0})
    return (
        Measurement(train, heldout, plain, job.processes.device, job.processes.say).run(["frechet"]).values["frechet"]
    )


def _check_kept(settings: EvaluateSettings, samples: FeatureSet) -> None:
    """Raise UserError where the samples lack what is to be saved of them."""
    for path, whole in ((settings.save_statistics, False), (settings.save_features, True)):
        if path is not None and not samples.features and (whole or not samples.stored):
            raise UserError(f"{samples.name}: holds statistics alone; there are no features to save in {path}")


def _keep(job: _Job, samples: FeatureSet | None) -> None:
    if samples is None:
        return
    _check_kept(job.settings, samples)
    for path, whole in ((job.settings.save_statistics, False), (job.settings.save_features, True)):
        if path is not None:
            samples.save(path, job.processes.device, features=whole)
            job.processes.say(f"wrote {path}")


def _samples(config: EvaluateConfig | EvaluateOnly, images: Images | None) -> Material:
    if images is not None:
        return Material(Path(images.name), images)
    path = config.evaluate.samples
    if path is None and isinstance(config, EvaluateConfig):
        path = _only_samples(config.output / "samples")
    if path is None:
        raise UserError("no samples: name a folder, an .npz, or saved features")
    return open_material(path)


def _check_neighbours(settings: EvaluateSettings, metrics: Sequence[Metric], *sides: Material) -> None:
    ks = {settings.k} if {"precision", "recall"} & set(metrics) else set()
    ks |= {settings.density_k} if {"density", "coverage"} & set(metrics) else set()
    for side in sides:
        if ks and side.count is not None and side.count <= max(ks):
            raise UserError(f"{side.path}: k must be below the number of images, {side.count}; got {max(ks)}")


def _inputs(settings: EvaluateSettings, *sides: Material) -> list[Path]:
    named = [side.path for side in sides] + [settings.weights, settings.dinov2]
    return [path for path in named if path is not None]


def _out(config: EvaluateConfig | EvaluateOnly, samples: Material) -> Path:
    """Beside the samples: in their folder, or named after their file."""
    path = samples.path
    return config.evaluate.out or (path / RESULT if path.is_dir() else path.with_name(f"{path.stem}.{RESULT}"))


def _only_samples(folder: Path) -> Path:
    found = sorted(path.parent for path in folder.glob(f"*/{INFO}"))
    if len(found) != 1:
        raise UserError(f"{folder}: holds {len(found)} folders of samples; name one with evaluate.samples=FOLDER")
    return found[0]


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - started, 3)
