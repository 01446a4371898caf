"""How well a SemVAE reconstructs held-out features, over time, in one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeInt
from torch import Tensor
from torch.nn import functional as F

from lwd.data.features import FeatureShards
from lwd.encoders.semvae import SemVAE
from lwd.files import write_json
from lwd.records import Record, read_records
from lwd.runtime.processes import Processes


class Measured(Record):
    """One of the results, of which only the step is read again."""

    what: ClassVar[str] = "a list of what `lwd semvae` measured"
    remedy: ClassVar[str] = "remove it"

    step: NonNegativeInt


class HeldOut:
    """Measures a model on all images of ``shards``, shared out over the processes; ``path`` holds a list of results.

    Each result has ``step``; ``mse`` (over all entries), ``cosine`` (mean similarity over positions) and ``kl`` (mean
    over images, nats) of the reconstruction from the posterior's mean; and by channel ``latent_mean`` and
    ``latent_std`` of that mean over images and positions, and ``posterior_std``, the root of the mean variance.
    """

    def __init__(self, shards: FeatureShards, path: Path, batch: int, processes: Processes) -> None:
        self.shards, self.path, self._batch, self._processes = shards, path, batch, processes

    @torch.no_grad()
    def measure(self, model: SemVAE, step: int) -> dict[str, Any]:
        """Measure after ``step`` steps, in float32; the main process writes it. Later results there are dropped."""
        rows = torch.arange(self._processes.rank, len(self.shards), self._processes.world)
        parts = [self._sums(model, part) for part in torch.split(rows, self._batch)]
        zero = torch.zeros(3 + 3 * model.channels, dtype=torch.float64)
        sums = self._processes.mean(sum(parts, zero).to(self._processes.device)).cpu() * self._processes.world
        positions = len(self.shards) * self.shards.shape[1] * self.shards.shape[2]
        mean, square, variance = (sums[3:] / positions).reshape(3, -1)
        result = {
            "step": step,
            "mse": float(sums[0]) / (positions * self.shards.shape[0]),
            "cosine": float(sums[1]) / positions,
            "kl": float(sums[2]) / len(self.shards),
            "latent_mean": mean.tolist(),
            "latent_std": (square - mean.square()).clamp(min=0).sqrt().tolist(),
            "posterior_std": variance.sqrt().tolist(),
        }
        if self._processes.is_main:
            earlier = read_records(self.path, Measured) if self.path.exists() else []
            write_json(self.path, [*(line.model_dump() for line in earlier if line.step < step), result])
        return result

    def _sums(self, model: SemVAE, rows: Tensor) -> Tensor:
        """Sums over the images ``rows``, (3 + 3 k,) float64: square error, cosine, KL; mean, its square, variance."""
        features = self.shards.read(rows).to(self._processes.device).float()
        posterior = model.posterior(features)
        reconstruction = model.decode(posterior.mean)
        scalars = (
            (reconstruction - features).square(),
            F.cosine_similarity(reconstruction, features, dim=1),
            posterior.kl(),
        )
        channels = (posterior.mean, posterior.mean.square(), posterior.logvar.exp())
        sums = [x.sum(dtype=torch.float64).reshape(1) for x in scalars]
        return torch.cat([*sums, *(x.sum((0, 2, 3), dtype=torch.float64) for x in channels)]).cpu()
