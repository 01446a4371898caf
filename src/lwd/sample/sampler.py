"""A network with everything that decides how it is sampled from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.models import LightningDiT
from lwd.runtime.engine import Engine
from lwd.sample.checkpoints import load_checkpoint_model
from lwd.sample.generate import Samples, stream
from lwd.sample.guidance import AutoGuidance, ClassifierFreeGuidance, CombinedGuidance, Guidance
from lwd.sample.settings import GuidanceSettings, SampleSettings, to_interval, to_scale
from lwd.sample.trace import Trajectory, trace
from lwd.schedules import Schedule


@dataclass(frozen=True)
class Sampler:
    """``model`` under ``schedule``, with the solver of ``settings`` and ``guidance``."""

    model: LightningDiT
    schedule: Schedule
    settings: SampleSettings
    guidance: Guidance | None
    precision: Callable[[], AbstractContextManager[object]] = nullcontext
    """The context in which networks run: `Engine.autocast`."""

    def seeds(self) -> Tensor:
        """One for each of ``settings.num`` samples, (N,) int64."""
        return self.settings.seed * 2**32 + torch.arange(self.settings.num)

    def sample(self, labels: Tensor, seeds: Tensor, finished: Callable[[int], None]) -> Samples:
        """labels, seeds (N,) -> latents and nfe on the device; ``finished`` is told how many more samples are done."""
        model, device = self.model, next(self.model.parameters()).device
        latents = torch.empty(len(labels), model.layout.channels, model.input_size, model.input_size, device=device)
        nfe = torch.zeros(len(labels), dtype=torch.int64, device=device)
        how, batch, size = self.settings.integration, self.settings.batch, model.input_size
        with self.precision():
            for done in stream(model, self.schedule, model.layout, labels, seeds, size, how, self.guidance, batch):
                where = done.indices.to(device, non_blocking=True)
                latents[where], nfe[where] = done.latents, done.nfe
                finished(len(where))
        return Samples(latents, nfe)

    def trace(self, labels: Tensor, seeds: Tensor) -> Trajectory:
        """The same samples' paths, at ``settings.trace_points`` global times from 0 to 1."""
        taus, s, model = torch.linspace(0, 1, self.settings.trace_points).tolist(), self.settings, self.model
        size = model.input_size
        with self.precision():
            return trace(model, self.schedule, model.layout, labels, seeds, size, taus, self.guidance, s.integration)


def load_guidance(settings: GuidanceSettings, schedule: Schedule, engine: Engine) -> Guidance | None:
    """What ``sample.guidance`` asks for, with its weak model; raises UserError where that is of another schedule."""
    interval, scale = to_interval(settings.interval), to_scale(settings.scale)
    if settings.kind == "none":
        return None
    if settings.kind == "classifier_free":
        return ClassifierFreeGuidance(scale, interval=interval)
    if settings.weak is None:
        raise UserError("sample.guidance.weak: AutoGuidance needs the checkpoint folder of a weak model")
    weak, weak_schedule = load_checkpoint_model(settings.weak)
    if weak_schedule.hash() != schedule.hash():
        raise UserError(f"{settings.weak}: the weak model was trained under another schedule than the main one")
    auto = AutoGuidance(engine.place(weak), scale, interval)
    if settings.kind == "auto":
        return auto
    return CombinedGuidance(auto, ClassifierFreeGuidance(to_scale(settings.free_scale), interval=interval))
