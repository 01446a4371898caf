"""Sampling: noise from each image's own seed, one integration in global time, the end state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from lwd.flow import global_velocity
from lwd.groups import Layout
from lwd.runtime.seeding import Stream, normal
from lwd.sample.guidance import AutoGuidance, ClassifierFreeGuidance, Model
from lwd.sample.ode import Solution, Solver, integrate
from lwd.schedules import Schedule


@dataclass(frozen=True)
class Samples:
    """latents (N, C, H, W), standardised as in training, and the velocity evaluations each needed, nfe (N,)."""

    latents: Tensor
    nfe: Tensor


@dataclass(frozen=True)
class Flow:
    """The global-time flow of a denoiser under a schedule (Eq. 13), for given labels (N,)."""

    network: Model
    schedule: Schedule
    layout: Layout
    labels: Tensor

    def local(self, z: Tensor, tau: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z (N, C, H, W), tau (N,) -> local velocities (N, C, H, W), times and rates (N, G)."""
        times, rates = (x.to(z.dtype) for x in self.schedule(tau))
        return self.network(z, times, self.labels), times, rates

    def __call__(self, z: Tensor, tau: Tensor) -> Tensor:
        """z (N, C, H, W), tau (N,) -> dz/dtau (N, C, H, W)."""
        v, _, rates = self.local(z, tau)
        return global_velocity(v, rates, self.layout)


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
    batch: int | None = None,
    finished: Callable[[int], None] = lambda count: None,
) -> Samples:
    """Integrate Eq. 28-29 from noise; labels and seeds (N,) int64, on the model's device as one batch.

    Sample i depends on labels[i] and seeds[i] alone, up to the rounding of a batched matrix product. ``steps`` is for
    the fixed-step solvers, ``atol`` and ``rtol`` for dopri5. Raises UserError where the schedule's groups are not the
    layout's or the solution is not finite.
    """
    flow, noise = start_flow(model, schedule, layout, labels, seeds, input_size, guidance)
    if batch is not None and batch < len(labels):
        parts = []
        for some in torch.split(torch.arange(len(labels)), batch):
            parts.append(
                generate(
                    model, schedule, layout, labels[some], seeds[some], input_size, solver, atol, rtol, guidance, steps
                )
            )
            finished(len(some))
        return Samples(torch.cat([p.latents for p in parts]), torch.cat([p.nfe for p in parts]))
    solution = _integrate(flow, noise, solver, steps, atol, rtol, 0.0, 1.0)
    return Samples(solution.z.view(noise.shape), solution.nfe)


@dataclass(frozen=True)
class Trajectory:
    """A sampler's path at ``taus`` (K,): states and predicted clean latents (K, N, C, H, W), times (K, G)."""

    taus: Tensor
    times: Tensor
    states: Tensor
    predictions: Tensor


@torch.no_grad()
def trace(
    model: nn.Module,
    schedule: Schedule,
    layout: Layout,
    labels: Tensor,
    seeds: Tensor,
    input_size: int,
    taus: Sequence[float],
    guidance: AutoGuidance | ClassifierFreeGuidance | None = None,
) -> Trajectory:
    """The path of `generate` (dopri5) at increasing ``taus`` in [0, 1], with the network's guess x1 = z + (1 - t) v."""
    flow, z = start_flow(model, schedule, layout, labels, seeds, input_size, guidance)
    states, predictions, all_times = [], [], []
    for start, end in pairwise([0.0, *taus]):
        if end > start:
            z = _integrate(flow, z, "dopri5", 0, 1e-6, 1e-3, start, end).z.view(z.shape)
        v, times, _ = flow.local(z, torch.full((len(z),), end, dtype=torch.float64, device=z.device))
        states.append(z)
        predictions.append(z + (1 - layout.expand(times)) * v)
        all_times.append(times[0])
    return Trajectory(torch.tensor(taus), *(torch.stack(x).cpu() for x in (all_times, states, predictions)))


def start_flow(
    model: nn.Module,
    schedule: Schedule,
    layout: Layout,
    labels: Tensor,
    seeds: Tensor,
    input_size: int,
    guidance: AutoGuidance | ClassifierFreeGuidance | None,
) -> tuple[Flow, Tensor]:
    """The guided flow on the model's device, and each sample's own noise (N, C, H, W)."""
    schedule.check(layout, "sample")
    device = next(model.parameters()).device
    labels, seeds = labels.to(device), seeds.to(device)
    shape = (layout.channels, input_size, input_size)
    noise = normal(Stream.SAMPLE_NOISE, seeds, 0, torch.zeros_like(seeds), shape)
    network = guidance.wrap(model, layout) if guidance is not None else model
    return Flow(network, schedule.to(device), layout, labels), noise


def _integrate(
    flow: Flow, z: Tensor, solver: Solver, steps: int, atol: float, rtol: float, start: float, end: float
) -> Solution:
    def velocity(flat: Tensor, tau: Tensor) -> Tensor:
        return flow(flat.view(z.shape), tau).flatten(1)

    return integrate(velocity, z.flatten(1), flow.schedule.kinks, solver, steps, atol, rtol, start, end)
