"""The training data as a function of the step: which images make it, and the noise, times and dropout they get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lwd.data.shards import Batch, LatentShards
from lwd.errors import UserError
from lwd.runtime.seeding import Stream, batch_indices, normal, uniform


class StepBatch(NamedTuple):
    """One process's share of a step's global batch; ``places`` (B,) are the samples' places in the global batch."""

    batch: Batch
    places: Tensor


def share(batch: int, rank: int, world: int) -> Tensor:
    """The places in a global batch that process ``rank`` of ``world`` takes: (batch / world,) int64.

    Raises UserError where the batch does not divide.
    """
    if batch % world:
        raise UserError(f"batch {batch} does not divide over {world} processes; choose a multiple")
    mine = batch // world
    return torch.arange(rank * mine, (rank + 1) * mine)


@dataclass(frozen=True)
class Draws:
    """A step's randomness: noise x0 (B, C, H, W), uniform numbers for tau (B,), which labels are dropped (B,)."""

    x0: Tensor
    u: Tensor
    dropped: Tensor


class StepBatches(Dataset[StepBatch]):
    """``ds[step]``, a pure function of (seed, step); process ``rank`` of ``world`` gets its part."""

    def __init__(self, shards: LatentShards, batch: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.shards, self.batch, self.seed = shards, batch, seed
        self.mine = share(batch, rank, world)

    def __getitem__(self, step: int) -> StepBatch:
        images = batch_indices(self.seed, step, self.batch, len(self.shards))[self.mine]
        flips = uniform(Stream.FLIP, self.seed, step, self.mine) < 0.5 if self.shards.flip else None
        return StepBatch(self.shards.read(images, flips), self.mine)


def draw(seed: int, step: int, places: Tensor, shape: tuple[int, ...], label_dropout: float) -> Draws:
    """The randomness of samples ``places`` (B,) in ``step``, on their device; ``shape`` is (C, H, W)."""
    return Draws(
        normal(Stream.NOISE, seed, step, places, shape),
        uniform(Stream.TIME, seed, step, places),
        uniform(Stream.LABEL_DROPOUT, seed, step, places) < label_dropout,
    )
