"""Sampling one step at a time, for callers that want to see or change the latents in between."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from lwd.errors import UserError
from lwd.flow import global_velocity
from lwd.groups import Layout
from lwd.runtime.seeding import Stream, normal
from lwd.sample.guidance import AutoGuidance, ClassifierFreeGuidance
from lwd.sample.ode import Solver, integrate
from lwd.schedules import Schedule

Callback = Callable[[Any, int, float, dict[str, Tensor]], dict[str, Tensor] | None]
"""diffusers' ``callback_on_step_end``: pipeline, step, global time reached, {"latents"} -> what to go on with."""


def sample_stepwise(
    pipe: Any,
    model: nn.Module,
    schedule: Schedule,
    layout: Layout,
    labels: Tensor,
    seeds: Tensor,
    input_size: int,
    solver: Solver,
    guidance: AutoGuidance | ClassifierFreeGuidance,
    steps: int,
    callback: Callback,
) -> Tensor:
    """`lwd.sample.generate` by a one-step method, with ``callback`` after each of ``steps`` equal steps.

    Returns the latents (N, C, H, W). Raises UserError as `generate`, and where the callback returns other shapes.
    """
    device = next(model.parameters()).device
    labels, seeds, schedule = labels.to(device), seeds.to(device), schedule.to(device)
    network = guidance.wrap(model, layout)
    z = normal(Stream.SAMPLE_NOISE, seeds, 0, torch.zeros_like(seeds), (layout.channels, input_size, input_size))

    def velocity(flat: Tensor, tau: Tensor) -> Tensor:
        times, rates = (x.to(flat.dtype) for x in schedule(tau))
        return global_velocity(network(flat.view(z.shape), times, labels), rates, layout).flatten(1)

    taus = torch.linspace(0, 1, steps + 1, dtype=torch.float64).tolist()
    for step, (now, then) in enumerate(pairwise(taus)):
        solution = integrate(velocity, z.flatten(1), schedule.kinks, solver, steps=1, start=now, end=then)
        z = _changed(callback(pipe, step, then, {"latents": solution.z.view(z.shape)}), solution.z.view(z.shape))
        if pipe._interrupt:
            break
    return z


def _changed(returned: dict[str, Tensor] | None, latents: Tensor) -> Tensor:
    """The latents to go on with."""
    chosen = (returned or {}).get("latents", latents)
    if not isinstance(chosen, Tensor) or chosen.shape != latents.shape:
        raise UserError(f"callback_on_step_end: must return latents of shape {tuple(latents.shape)}")
    return chosen.to(latents)
