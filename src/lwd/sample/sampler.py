"""A network with everything that decides how it is sampled from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lwd.models import LightningDiT
from lwd.sample.generate import Samples, Trajectory, generate, trace
from lwd.sample.guidance import AutoGuidance, ClassifierFreeGuidance
from lwd.sample.settings import SampleSettings
from lwd.schedules import Schedule


@dataclass(frozen=True)
class Sampler:
    """``model`` under ``schedule``, with the solver of ``settings`` and ``guidance``."""

    model: LightningDiT
    schedule: Schedule
    settings: SampleSettings
    guidance: AutoGuidance | ClassifierFreeGuidance | None

    def seeds(self) -> Tensor:
        """One for each of ``settings.num`` samples, (N,) int64."""
        return self.settings.seed * 2**32 + torch.arange(self.settings.num)

    def sample(self, labels: Tensor, seeds: Tensor, finished: Callable[[int], None]) -> Samples:
        """labels, seeds (N,); ``finished`` is told how many more samples are done."""
        s = self.settings
        return generate(
            self.model,
            self.schedule,
            self.model.layout,
            labels,
            seeds,
            self.model.input_size,
            solver=s.solver,
            atol=s.atol,
            rtol=s.rtol,
            guidance=self.guidance,
            steps=s.steps,
            batch=s.batch,
            finished=finished,
        )

    def trace(self, labels: Tensor, seeds: Tensor) -> Trajectory:
        """The same samples' paths, at ``settings.trace_points`` global times from 0 to 1."""
        taus = torch.linspace(0, 1, self.settings.trace_points).tolist()
        model = self.model
        return trace(model, self.schedule, model.layout, labels, seeds, model.input_size, taus, self.guidance)
