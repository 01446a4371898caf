"""The flow of a denoiser in global time (Eq. 13), and each sample's own noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from lwd.errors import UserError
from lwd.flow import global_velocity
from lwd.groups import Layout
from lwd.runtime.seeding import Stream, normal
from lwd.sample.guidance import Guidance, Guided, Model
from lwd.schedules import Schedule


@dataclass(frozen=True)
class Flow:
    """dz/dtau of samples 0 .. N - 1 of the given labels and seeds, (N,) int64 on the host; ``size`` = H = W."""

    network: Model
    schedule: Schedule
    layout: Layout
    labels: Tensor
    seeds: Tensor
    size: int
    device: torch.device

    def __len__(self) -> int:
        return len(self.labels)

    def noise(self, index: Tensor) -> Tensor:
        """The states at tau = 0 of samples ``index`` (n,), flat: (n, D) float32, functions of their seeds alone."""
        seeds = self.seeds[index].to(self.device)
        shape = (self.layout.channels, self.size, self.size)
        return normal(Stream.SAMPLE_NOISE, seeds, 0, torch.zeros_like(seeds), shape).flatten(1)

    def unflatten(self, z: Tensor) -> Tensor:
        """(..., D) -> (..., C, H, W)."""
        return z.view(*z.shape[:-1], self.layout.channels, self.size, self.size)

    def local(self, z: Tensor, tau: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z (S, C, H, W), tau (S,) float64, labels (S,) -> local velocities (S, C, H, W), times and rates (S, G)."""
        times, rates = (x.to(z.dtype) for x in self.schedule(tau))
        if isinstance(self.network, Guided):
            return self.network(z, times, labels, tau), times, rates
        return self.network(z, times, labels), times, rates

    @cached_property
    def labels_on_device(self) -> Tensor:
        """The labels (N,), copied once."""
        return self.labels.to(self.device)

    def velocity(self, z: Tensor, tau: Tensor, index: Tensor) -> Tensor:
        """The flat global velocity (S, D) at z (S, D) and tau (S,) of samples ``index`` (S,), all on the device."""
        v, _, rates = self.local(self.unflatten(z), tau, self.labels_on_device[index])
        return global_velocity(v.to(z.dtype), rates, self.layout).flatten(1)


def make_flow(
    model: nn.Module,
    schedule: Schedule,
    layout: Layout,
    labels: Tensor,
    seeds: Tensor,
    input_size: int,
    guidance: Guidance | None = None,
) -> Flow:
    """The guided flow on the model's device. Raises UserError for a schedule, labels or seeds that do not fit."""
    schedule.check(layout, "sample")
    if labels.shape != seeds.shape or labels.ndim != 1:
        raise UserError(
            f"sample: labels {tuple(labels.shape)} and seeds {tuple(seeds.shape)} must be vectors of one size"
        )
    labels, seeds = labels.cpu(), seeds.cpu()
    null = getattr(model, "null_label", None)
    if isinstance(null, int) and bool((wrong := (labels < 0) | (labels > null)).any()):
        i = int(wrong.nonzero()[0, 0])
        raise UserError(f"sample {i}: label {int(labels[i])}, but the model's are 0 to {null} ({null}: no class)")
    device = next(model.parameters()).device
    network = guidance.wrap(model, layout) if guidance is not None else model
    return Flow(network, schedule.to(device), layout, labels, seeds, input_size, device)
