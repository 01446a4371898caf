"""Sampling: noise from each image's own seed, one integration in global time, the end state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lwd.errors import UserError
from lwd.groups import Layout
from lwd.ode.grids import Warp
from lwd.ode.methods import Solver
from lwd.ode.plan import Integration, make_plan
from lwd.ode.pool import SampleError, flow_through
from lwd.ode.slots import Observer
from lwd.sample.field import Flow, make_flow
from lwd.sample.guidance import Guidance
from lwd.schedules import Schedule


@dataclass(frozen=True)
class Samples:
    """latents (N, C, H, W), standardised as in training, and the velocity evaluations each needed, nfe (N,)."""

    latents: Tensor
    nfe: Tensor


class Ended(NamedTuple):
    """Samples that are done: ``indices`` (n,) int64 on the host; latents (n, C, H, W), nfe (n,) on the device."""

    indices: Tensor
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
    guidance: Guidance | None = None,
    steps: int = 50,
    grid: str | Warp = "uniform",
    batch: int | None = None,
    finished: Callable[[int], None] = lambda count: None,
) -> Samples:
    """Integrate Eq. 28-29 from noise; labels and seeds (N,) int64, on the model's device, ``batch`` at a time.

    ``batch`` None: all at once. Sample i depends on labels[i] and seeds[i] alone, up to the rounding of batched
    products. ``steps`` and ``grid`` are for the fixed-step solvers, ``atol`` and ``rtol`` for dopri5 (`Integration`).
    ``finished`` is told how many more samples are done. Raises UserError where schedule, labels or guidance do not fit
    the model, or a sample is not finite.
    """
    how = Integration(solver, atol, rtol, steps, grid)
    flow = make_flow(model, schedule, layout, labels, seeds, input_size, guidance)
    latents = torch.empty(len(flow), layout.channels, input_size, input_size, device=flow.device)
    nfe = torch.zeros(len(flow), dtype=torch.int64, device=flow.device)
    for done in run_flow(flow, how, batch):
        where = done.indices.to(flow.device, non_blocking=True)
        latents[where], nfe[where] = done.latents, done.nfe
        finished(len(where))
    return Samples(latents, nfe)


def run_flow(
    flow: Flow, how: Integration, batch: int | None = None, observe: Observer | None = None, refill: bool = True
) -> Iterator[Ended]:
    """The samples of a flow as they end, in no order; memory is that of ``batch`` samples (None: of all).

    ``observe`` and ``refill``: as `lwd.ode.pool.flow_through`. Raises UserError where a sample is not finite.
    """
    plan = make_plan(how, flow.schedule, flow.device)
    size = max(1, len(flow)) if batch is None else batch
    try:
        for done in flow_through(flow.velocity, flow.noise, len(flow), size, plan, observe, refill):
            yield Ended(done.index, flow.unflatten(done.z), done.nfe)
    except SampleError as error:
        label, seed = int(flow.labels[error.number]), int(flow.seeds[error.number])
        raise UserError(f"sample {error.number} (label {label}, seed {seed}): {error.what}") from error
