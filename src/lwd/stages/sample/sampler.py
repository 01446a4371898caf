"""A network with everything that decides how it is sampled from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lwd.data.stats import Statistics
from lwd.errors import UserError
from lwd.groups import Layout
from lwd.models import record_of
from lwd.models.pretrained import load_checkpoint_model
from lwd.runtime.placement import place
from lwd.runtime.processes import Processes
from lwd.sample.field import make_flow
from lwd.sample.generate import Samples, generate
from lwd.sample.guidance import AutoGuidance, ClassifierFreeGuidance, CombinedGuidance, Guidance
from lwd.sample.numbered import seeds_of
from lwd.sample.path import Trajectory, trajectory
from lwd.schedules import Schedule
from lwd.stages.sample.fit import check_fit
from lwd.stages.sample.settings import GuidanceSettings, SampleConfig, SampleSettings, to_interval, to_scale


@dataclass(frozen=True)
class Sampler:
    """``model`` under ``schedule``, with the solver of ``settings`` and ``guidance``; ``statistics`` of its latents."""

    model: nn.Module
    layout: Layout
    statistics: Statistics
    schedule: Schedule
    settings: SampleSettings
    guidance: Guidance | None
    precision: Callable[[], AbstractContextManager[object]] = nullcontext
    """The context in which networks run: `Processes.autocast`."""

    def seeds(self) -> Tensor:
        """One for each of ``settings.num`` samples, (N,) int64."""
        return seeds_of(self.settings.seed, self.settings.num)

    def sample(self, labels: Tensor, seeds: Tensor, finished: Callable[[int], None]) -> Samples:
        """labels, seeds (N,) -> latents and nfe on the device; ``finished`` is told how many more samples are done."""
        s, how = self.settings, self.settings.integration
        with self.precision():
            return generate(
                self.model,
                self.schedule,
                self.layout,
                labels,
                seeds,
                record_of(self.model).sample_shape,
                solver=how.solver,
                atol=how.atol,
                rtol=how.rtol,
                guidance=self.guidance,
                steps=how.steps,
                grid=how.grid,
                batch=s.batch,
                finished=finished,
            )

    def trajectory(self, labels: Tensor, seeds: Tensor) -> Trajectory:
        """The same samples' paths, at ``settings.trace_points`` global times from 0 to 1."""
        taus, shape = torch.linspace(0, 1, self.settings.trace_points).tolist(), record_of(self.model).sample_shape
        flow = make_flow(self.model, self.schedule, self.layout, labels, seeds, shape, self.guidance)
        with self.precision():
            return trajectory(flow, self.settings.integration, taus)


def open_sampler(config: SampleConfig, checkpoint: Path, processes: Processes) -> Sampler:
    """What ``config`` samples from, on the processes's device. Raises UserError for input that does not fit."""
    settings = config.sample
    model, trained_under = load_checkpoint_model(checkpoint, config.model.name)
    check_fit(checkpoint, model, config)
    schedule = choose(config, trained_under, checkpoint)
    guidance = load_guidance(settings.guidance, schedule, processes, config.model.name)
    if guidance is not None:
        guidance.wrap(model, config.layout)  # refuses what does not fit before anything is computed or written
    statistics = Statistics.load(config.data_path / "train", config.layout, len(record_of(model).shape))
    return Sampler(place(model, processes), config.layout, statistics, schedule, settings, guidance, processes.autocast)


def choose(config: SampleConfig, trained_under: Schedule, checkpoint: Path) -> Schedule:
    """The schedule that ``sample.schedule`` asks for. Raises UserError for another one than the network serves."""
    choice = config.sample.schedule
    if choice is None:
        return trained_under
    learned = config.output / "schedule.json"
    schedule = choice.make(config.layout, config.leader, learned, "run lwd sweep first, or name its file")
    if not trained_under.any_other and schedule.hash() != trained_under.hash():
        raise UserError(
            f"{checkpoint}: trained under schedule {trained_under.hash()}, which is not {choice}; leave "
            "sample.schedule out, or train with train.times=independent, with which a network serves every schedule"
        )
    return schedule


def load_guidance(
    settings: GuidanceSettings, schedule: Schedule, processes: Processes, network: str
) -> Guidance | None:
    """What ``sample.guidance`` asks for, with its weak model, for which ``network`` is as in `load_model`.

    Raises UserError where that is of another schedule.
    """
    interval, scale = to_interval(settings.interval), to_scale(settings.scale)
    if settings.kind == "none":
        return None
    if settings.kind == "classifier_free":
        return ClassifierFreeGuidance(scale, interval=interval)
    if settings.weak is None:
        raise UserError("sample.guidance.weak: AutoGuidance needs the checkpoint folder of a weak model")
    weak, weak_schedule = load_checkpoint_model(settings.weak, network)
    if not weak_schedule.any_other and weak_schedule.hash() != schedule.hash():
        raise UserError(f"{settings.weak}: the weak model was trained under another schedule than the main one")
    auto = AutoGuidance(place(weak, processes), scale, interval)
    if settings.kind == "auto":
        return auto
    return CombinedGuidance(auto, ClassifierFreeGuidance(to_scale(settings.free_scale), interval=interval))
