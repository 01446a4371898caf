"""The flow of a denoiser in global time (Eq. 13), and each sample's own noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lwd.errors import UserError
from lwd.flow import global_velocity
from lwd.groups import Layout
from lwd.runtime.seeding import Stream, normal
from lwd.sample import condition as conditions
from lwd.sample.guidance import Guidance, Guided, Model
from lwd.schedules import Schedule


@dataclass(frozen=True)
class Flow:
    """Flow dz/dtau of N samples: their network, schedule, condition and seeds (N,) int64 on the host.

    A latent has ``shape`` (C, ...).
    """

    network: Model
    schedule: Schedule
    layout: Layout
    condition: Any
    seeds: Tensor
    shape: tuple[int, ...]
    device: torch.device

    def __len__(self) -> int:
        return len(self.seeds)

    def noise(self, index: Tensor) -> Tensor:
        """Noise of samples ``index`` (n,), the states at tau = 0: (n, D) float32, functions of their seeds alone."""
        seeds = self.seeds[index].to(self.device, non_blocking=True)
        return normal(Stream.SAMPLE_NOISE, seeds, 0, torch.zeros_like(seeds), self.shape).flatten(1)

    def unflatten(self, z: Tensor) -> Tensor:
        """Give flat latents their shape: (..., D) -> (..., C, ...)."""
        return z.view(*z.shape[:-1], *self.shape)

    def local(self, z: Tensor, tau: Tensor, condition: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Local velocities (S, C, ...), times and rates (S, G) at states z (S, C, ...) and global times tau (S,)."""
        times, rates = (x.to(z.dtype) for x in self.schedule(tau))
        if isinstance(self.network, Guided):
            return self.network(z, times, condition, tau), times, rates
        return self.network(z, times, condition), times, rates

    @cached_property
    def condition_on_device(self) -> Any:
        """The condition of all samples, copied once."""
        return conditions.to(self.condition, self.device)

    def velocity(self, z: Tensor, tau: Tensor, index: Tensor) -> Tensor:
        """Global velocity, flat, (S, D) at z (S, D) and tau (S,) of samples ``index`` (S,), all on the device."""
        state = self.unflatten(z)
        v, _, rates = self.local(state, tau, conditions.take(self.condition_on_device, index))
        if v.shape != state.shape:
            raise UserError(f"sample: the network returns {tuple(v.shape)} for latents of {tuple(state.shape)}")
        return global_velocity(v.to(z.dtype), rates, self.layout).flatten(1)

    def name(self, number: int) -> str:
        """Name a sample for messages: its number, its label where the condition is labels, and its seed."""
        label = f"label {int(self.condition[number])}, " if _labels(self.condition) else ""
        return f"sample {number} ({label}seed {int(self.seeds[number])})"


def make_flow(
    model: Model,
    schedule: Schedule,
    layout: Layout,
    condition: Any,
    seeds: Tensor,
    shape: Sequence[int],
    guidance: Guidance | None = None,
    device: torch.device | str | None = None,
) -> Flow:
    """Make the guided flow of samples of ``shape`` (C, ...), one for each of ``seeds`` (N,) int64.

    ``condition`` is what the model takes as third argument, for all N samples: a tensor such as labels, (nested) tuples
    or mappings of tensors, or None. ``device`` None: where the model's parameters are. Raises UserError for a schedule,
    condition, seeds or shape that do not fit.
    """
    schedule.check(layout, "sample")
    shape = tuple(shape)
    if not shape or shape[0] != layout.channels or (layout.flat and len(shape) > 1) or math.prod(shape) < 1:
        wanted = f"({layout.channels},)" if layout.flat else f"({layout.channels}, ...)"
        raise UserError(f"sample: latents of shape {shape}, but the layout {layout} has {wanted}")
    try:
        known = conditions.count(condition)
    except ValueError as error:
        raise UserError(f"sample: {error}") from error
    if seeds.ndim != 1 or known not in (None, len(seeds)):
        raise UserError(f"sample: a condition of {known} samples, but seeds are {tuple(seeds.shape)}; one for each")
    seeds = seeds.cpu()
    null = getattr(model, "null_label", None)
    if isinstance(null, int) and _labels(condition) and bool((wrong := (condition < 0) | (condition > null)).any()):
        i = int(wrong.nonzero()[0, 0])
        raise UserError(f"sample {i}: label {int(condition[i])}, but the model's are 0 to {null} ({null}: no class)")
    where = torch.device(device) if device is not None else _device(model)
    network = guidance.wrap(model, layout) if guidance is not None else model
    return Flow(network, schedule.to(where), layout, condition, seeds, shape, where)


def _labels(condition: Any) -> bool:
    return isinstance(condition, Tensor) and condition.ndim == 1 and not condition.is_floating_point()


def _device(model: Model) -> torch.device:
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device
