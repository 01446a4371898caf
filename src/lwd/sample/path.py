"""The path of a sampler: the very steps that `generate` takes, read between them from the solver's dense output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.files import atomic_path
from lwd.groups import Layout
from lwd.ode.plan import Integration
from lwd.ode.slots import Slots
from lwd.sample.field import Flow
from lwd.sample.generate import run_flow

TRAJECTORY = "trajectory.safetensors"
"""The file of a path in a folder of samples."""


@dataclass(frozen=True)
class Trajectory:
    """Path of N samples at global times ``taus`` (K,), on the host: states and predicted clean latents
    (K, N, C, ...), times (K, G).
    """

    taus: Tensor
    times: Tensor
    states: Tensor
    predictions: Tensor

    def save(self, file: str | Path, labels: Tensor) -> None:
        """Write a safetensors file, with the samples' labels (N,)."""
        from lwd.runtime.checkpoint import save_tensors  # safetensors, which sampling itself does not need

        with atomic_path(Path(file)) as temporary:
            save_tensors(temporary, {**vars(self), "labels": labels.clone()})

    @classmethod
    def read(cls, file: str | Path, layout: Layout) -> Self:
        """Read what `save` wrote; raises UserError where the file holds no trajectory of this layout."""
        from lwd.runtime.checkpoint import load_tensors

        tensors = load_tensors(Path(file))
        try:
            path = cls(**{key: tensors[key] for key in ("states", "predictions", "taus", "times")})
        except KeyError as error:
            raise UserError(f"{file}: missing key {error}; run `lwd sample` again") from error
        shape, count = path.states.shape, len(path.taus)
        fits = len(shape) > 2 and shape[0] == count and shape[2] == layout.channels and not (layout.flat and shape[3:])
        if not fits or path.predictions.shape != shape or path.times.shape != (count, len(layout.names)):
            raise UserError(f"{file}: not a trajectory of layout {layout}; run `lwd sample` again")
        return path


@torch.no_grad()
def trajectory(flow: Flow, how: Integration, taus: Sequence[float]) -> Trajectory:
    """Record the path of `generate` at ``taus`` in [0, 1], with the network's guess x1 = z + (1 - t) v at every one.

    N samples at once, as one batch. The last state of taus[-1] = 1 is `generate`'s, and no step is changed.
    """
    z = flow.noise(torch.arange(len(flow)))
    recorder = Recorder(torch.tensor(taus, dtype=torch.float64), z)
    for _ in run_flow(flow, how, observe=recorder):
        pass
    states, predictions, all_times = flow.unflatten(recorder.states), [], []
    for tau, state in zip(taus, states, strict=True):
        where = torch.full((len(flow),), tau, dtype=torch.float64, device=flow.device)
        v, times, _ = flow.local(state, where, flow.condition_on_device)
        predictions.append(state + (1 - flow.layout.expand(times, state)) * v)
        all_times.append(times[0])
    return Trajectory(
        torch.tensor(taus), *(x.cpu() for x in (torch.stack(all_times), states, torch.stack(predictions)))
    )


class Recorder:
    """An observer of slots that keeps the states (K, N, D) at ``taus`` (K,), given those at tau = 0, z (N, D)."""

    def __init__(self, taus: Tensor, z: Tensor) -> None:
        self.taus = taus.tolist()
        self.states = z.expand(len(taus), -1, -1).clone()

    def __call__(self, slots: Slots, accepted: Tensor, z_new: Tensor) -> None:
        """Keep what lies in the steps that end now."""
        end = slots.plan.ends[slots.segment]
        then = torch.where(slots.h >= end - slots.tau, end, slots.tau + slots.h)
        for tau, states in zip(self.taus, self.states, strict=True):
            hit = accepted & (slots.tau < tau) & (tau <= then)
            state = torch.where((tau == then)[:, None], z_new, slots.between((tau - slots.tau) / slots.h))
            states[slots.index] = torch.where(hit[:, None], state, states[slots.index])
