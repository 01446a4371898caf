"""Sampling one step at a time, for callers that want to see or change the latents in between."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.ode.grids import fixed_grid, uniform
from lwd.ode.integrate import integrate
from lwd.ode.methods import Solver
from lwd.sample.field import Flow

Callback = Callable[[Any, int, float, dict[str, Tensor]], dict[str, Tensor] | None]
"""diffusers' ``callback_on_step_end``: pipeline, step, global time reached, {"latents"} -> what to go on with."""


def sample_stepwise(pipe: Any, flow: Flow, solver: Solver, steps: int, callback: Callback) -> Tensor:
    """`lwd.sample.generate` by a one-step method, with ``callback`` after each of its ``steps`` steps.

    Returns the latents (N, C, H, W). Raises UserError as `generate`, and where the callback returns other shapes.
    """
    index = torch.arange(len(flow))
    z = flow.unflatten(flow.noise(index))
    index = index.to(flow.device)

    def velocity(flat: Tensor, tau: Tensor) -> Tensor:
        return flow.velocity(flat, tau, index)

    pieces = fixed_grid(uniform, steps, flow.schedule.kinks)
    taus = [0.0, *(tau for piece in pieces for tau in piece[1:].tolist())]
    for step, (now, then) in enumerate(pairwise(taus)):
        solution = integrate(velocity, z.flatten(1), flow.schedule.kinks, solver, steps=1, start=now, end=then)
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
