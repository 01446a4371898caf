"""Sampling: noise from each image's own seed, one integration in global time, the end state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lwd.flow import global_velocity
from lwd.groups import Layout
from lwd.runtime.seeding import Stream, normal
from lwd.sample.guidance import AutoGuidance, ClassifierFreeGuidance
from lwd.sample.ode import Solver, integrate
from lwd.schedules import Schedule


@dataclass(frozen=True)
class Samples:
    """latents (N, C, H, W), standardised as in training, and the velocity evaluations each needed, nfe (N,)."""

    latents: Tensor
    nfe: Tensor


@torch.no_grad()
def generate(
    model: nn.Module,
    schedule: Schedule,
    layout: Layout,
    labels: Tensor,
    seeds: Tensor,
    input_size: int,
    solver: Solver = "dopri5",
    atol: float = 1e-6,
    rtol: float = 1e-3,
    guidance: AutoGuidance | ClassifierFreeGuidance | None = None,
    steps: int = 50,
) -> Samples:
    """Integrate Eq. 28-29 from noise; labels and seeds (N,) int64, on the model's device as one batch.

    Sample i depends on labels[i] and seeds[i] alone, up to the rounding of a batched matrix product. ``steps`` is for
    the fixed-step solvers, ``atol`` and ``rtol`` for dopri5. Raises UserError where the schedule's groups are not the
    layout's or the solution is not finite.
    """
    schedule.check(layout, "sample")
    device = next(model.parameters()).device
    labels, seeds = labels.to(device), seeds.to(device)
    schedule = schedule.to(device)
    shape = (layout.channels, input_size, input_size)
    noise = normal(Stream.SAMPLE_NOISE, seeds, 0, torch.zeros_like(seeds), shape)
    network = guidance.wrap(model, layout) if guidance is not None else model

    def velocity(z: Tensor, tau: Tensor) -> Tensor:
        times, rates = schedule(tau)
        z = z.view(len(z), *shape)
        v = network(z, times.to(z.dtype), labels)
        return global_velocity(v, rates.to(z.dtype), layout).flatten(1)

    solution = integrate(velocity, noise.flatten(1), schedule.kinks, solver, steps, atol, rtol)
    return Samples(solution.z.view(len(noise), *shape), solution.nfe)
