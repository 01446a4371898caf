"""Sampling: noise from each image's own seed, one integration in global time, the end state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.groups import Layout
from lwd.ode.grids import Warp
from lwd.ode.methods import Solver
from lwd.ode.plan import Integration, make_plan
from lwd.ode.pool import SampleError, flow_through
from lwd.ode.slots import Observer
from lwd.sample.field import Flow, make_flow
from lwd.sample.guidance import Guidance, Model
from lwd.schedules import Schedule


@dataclass(frozen=True)
class Samples:
    """Samples: ``latents`` (N, C, ...), standardised as in training, and the velocity evaluations ``nfe`` (N,)."""

    latents: Tensor
    nfe: Tensor


class Ended(NamedTuple):
    """Samples that are done: ``indices`` (n,) int64 on the host; latents (n, C, ...), nfe (n,) on the device."""

    indices: Tensor
    latents: Tensor
    nfe: Tensor


@torch.no_grad()
def generate(
    model: Model,
    schedule: Schedule,
    layout: Layout,
    condition: Any,
    seeds: Tensor,
    shape: Sequence[int],
    solver: Solver = "dopri5",
    atol: float = 1e-6,
    rtol: float = 1e-3,
    guidance: Guidance | None = None,
    steps: int = 50,
    grid: str | Warp = "uniform",
    batch: int | None = None,
    finished: Callable[[int], None] = lambda count: None,
    device: torch.device | str | None = None,
) -> Samples:
    """Sample from a network under a schedule: a latent of ``shape`` (C, ...) for each of ``seeds`` (N,) int64.

    Integrates Eq. 28-29 from noise.

    ``model`` is any callable (z, times, condition) -> local velocities; ``condition`` is what it takes, for all N
    samples: labels (N,), (nested) tuples or mappings of tensors with N rows, or None. Sample i depends on its condition
    and seed alone, up to the rounding of batched products. ``batch`` samples at a time (None: all), where the model's
    parameters are, or on ``device``. ``steps`` and ``grid`` are for the fixed-step solvers, ``atol`` and ``rtol`` for
    dopri5 (`Integration`).
    ``finished`` is told how many more samples are done. Raises UserError where schedule, condition or guidance do not
    fit the model, or a sample is not finite.
    """
    how = Integration(solver, atol, rtol, steps, grid)
    flow = make_flow(model, schedule, layout, condition, seeds, shape, guidance, device)
    latents = torch.empty(len(flow), *flow.shape, device=flow.device)
    nfe = torch.zeros(len(flow), dtype=torch.int64, device=flow.device)
    for done in run_flow(flow, how, batch):
        where = done.indices.to(flow.device, non_blocking=True)
        latents[where], nfe[where] = done.latents, done.nfe
        finished(len(where))
    return Samples(latents, nfe)


def run_flow(
    flow: Flow, how: Integration, batch: int | None = None, observe: Observer | None = None, refill: bool = True
) -> Iterator[Ended]:
    """Yield the samples of a flow as they end, in no order; memory is that of ``batch`` samples (None: of all).

    ``observe`` and ``refill``: as `lwd.ode.pool.flow_through`. Raises UserError where a sample is not finite.
    """
    plan = make_plan(how, flow.schedule, flow.device)
    size = max(1, len(flow)) if batch is None else batch
    try:
        for done in flow_through(flow.velocity, flow.noise, len(flow), size, plan, observe, refill):
            yield Ended(done.index, flow.unflatten(done.z), done.nfe)
    except SampleError as error:
        raise UserError(f"{flow.name(error.number)}: {error.what}") from error
