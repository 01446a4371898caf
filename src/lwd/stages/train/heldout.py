"""The loss on held-out latents, under the corrected weighting and SFD's."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lwd.data.shards import LatentShards
from lwd.flow import Reduction, flow_loss, interpolate
from lwd.runtime.processes import Processes
from lwd.runtime.seeding import Stream, normal, uniform
from lwd.schedules import Schedule
from lwd.training.log_file import HELDOUT

_TIME, _NOISE = 0, 1
"""What stands in the place of the step in `Stream.HELDOUT`'s counter: the draws are the same at every step."""


class HeldOut:
    """Measures a denoiser on all images of ``shards``, unflipped and with their labels, shared out over the processes.

    Each image always gets the same tau ~ U(0, 1) and the same noise, whatever the batch or the number of processes.
    """

    def __init__(
        self,
        shards: LatentShards,
        schedule: Schedule,
        reduction: Reduction,
        batch: int,
        seed: int,
        processes: Processes,
    ) -> None:
        self.shards, self.schedule = shards, schedule
        self._reduction, self._batch, self._seed, self._processes = reduction, batch, seed, processes

    @torch.no_grad()
    def measure(self, model: nn.Module) -> dict[str, Tensor]:
        """Means over the images, the same on each process.

        ``heldout_corrected``: E[sum_g c_g t_g' l_g] (Eq. 33), ``heldout_unweighted``: E[sum_g c_g l_g], with the
        factors c_g of the reduction (`lwd.flow.group_factors`).
        """
        rows = torch.arange(self._processes.rank, len(self.shards), self._processes.world)
        sums = torch.zeros(2, dtype=torch.float64, device=self._processes.device)
        rounds = math.ceil(len(self.shards) / (self._processes.world * self._batch))
        for start in range(0, rounds * self._batch, self._batch):
            part = rows[start : start + self._batch]
            # A process without an image left repeats the first: a sharded model runs on all processes or on none.
            measured = self._sums(model, part if len(part) else torch.zeros(1, dtype=torch.int64))
            sums += measured if len(part) else 0
        corrected, unweighted = self._processes.mean(sums) * self._processes.world / len(self.shards)
        return {f"{HELDOUT}corrected": corrected, f"{HELDOUT}unweighted": unweighted}

    def _sums(self, model: nn.Module, rows: Tensor) -> Tensor:
        """Both losses summed over the images ``rows``, (2,) float64."""
        device, layout = self._processes.device, self.shards.layout
        batch = self.shards.read(rows)
        x1, labels, index = (tensor.to(device, non_blocking=True) for tensor in (batch.x1, batch.labels, rows))
        x0 = normal(Stream.HELDOUT, self._seed, _NOISE, index, tuple(x1.shape[1:]))
        times, rates = self.schedule(uniform(Stream.HELDOUT, self._seed, _TIME, index))
        z, u = interpolate(x0, x1, times, layout)
        with torch.autocast(device.type, self._processes.dtype, enabled=self._processes.dtype != torch.float32):
            v = model(z, times, labels)
        losses = [flow_loss(v, u, omega, layout, self._reduction)[0] for omega in (rates, torch.ones_like(rates))]
        return torch.stack(losses).double() * len(rows)
