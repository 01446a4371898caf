"""The training data as a function of the step: which images make it, and the noise, times and dropout they get."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lwd.data.order import WindowOrder
from lwd.data.shards import Batch, LatentShards
from lwd.errors import UserError
from lwd.runtime.seeding import Stream, batch_indices, normal, uniform

STEPS_DRAWN = 32
"""For how many steps flips are drawn at once."""
NUMBERS_DRAWN = 2**16
"""About how much noise is drawn at once."""


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
    """A step's randomness: noise x0 (B, C, ...), which labels are dropped (B,), and uniform numbers for times.

    These are (B,) where a sample takes one, and else (B, n).
    """

    x0: Tensor
    u: Tensor
    dropped: Tensor


class StepOrder:
    """Which of ``size`` images make each step, and which of them are mirrored: pure functions of (seed, step).

    ``mine``: the places in the global batch of process ``rank`` of ``world``. ``windows``: an order other than that of
    one draw from all images. Raises UserError for a batch that does not divide over the processes.
    """

    def __init__(
        self,
        size: int,
        flip: bool,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        windows: WindowOrder | None = None,
    ) -> None:
        self.size, self.flip, self.batch, self.seed, self.windows = size, flip, batch, seed, windows
        self.mine = share(batch, rank, world)
        self._flips: tuple[int, Tensor] | None = None

    def images(self, step: int) -> Tensor:
        """The images of the whole step, over all processes: (batch,) int64."""
        if self.windows is not None:
            return self.windows.images(step)
        return batch_indices(self.seed, step, self.batch, self.size)

    def own(self, step: int) -> tuple[Tensor, Tensor | None]:
        """This process's images (B,), and of which of them (B,) the twin is taken; None without flips."""
        return self.images(step)[self.mine], self._step_flips(step) if self.flip else None

    def _step_flips(self, step: int) -> Tensor:
        """Flips (B,) of a step; drawn for `STEPS_DRAWN` steps at once, since drawing for one costs as much."""
        block, row = divmod(step, STEPS_DRAWN)
        if self._flips is None or self._flips[0] != block:
            steps = torch.arange(block * STEPS_DRAWN, (block + 1) * STEPS_DRAWN)
            places = self.mine.repeat(STEPS_DRAWN)
            numbers = uniform(Stream.FLIP, self.seed, steps.repeat_interleave(len(self.mine)), places)
            self._flips = block, numbers.view(STEPS_DRAWN, -1) < 0.5
        return self._flips[1][row]


class StepBatches(StepOrder, Dataset[StepBatch]):
    """``ds[step]``, a pure function of (seed, step); process ``rank`` of ``world`` gets its part.

    ``window``: among how many shards images are mixed at a time, None: all. Shards that are fetched from elsewhere are
    sent for before their turn; raises UserError where their cache is too small for that.
    """

    def __init__(
        self,
        shards: LatentShards,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        window: int | None = None,
    ) -> None:
        windows = None if window is None else WindowOrder(shards.lengths, window, seed, batch)
        super().__init__(len(shards), shards.flip, batch, seed, rank, world, windows)
        self.shards = shards
        if shards.source is not None:
            shards.source.check_room(window)

    def __getitem__(self, step: int) -> StepBatch:
        if (source := self.shards.source) is not None:
            source.expect(range(len(source)) if self.windows is None else self.windows.ahead(step))
        return StepBatch(self.shards.read(*self.own(step)), self.mine)


def draw(
    seed: int, step: int | Tensor, places: Tensor, shape: tuple[int, ...], label_dropout: float, numbers: int = 1
) -> Draws:
    """The randomness of samples ``places`` (B,) in ``step`` (one, or (B,)), on their device; ``shape`` is (C, ...).

    ``numbers``: how many uniform numbers a sample's local times take.
    """
    return Draws(
        normal(Stream.NOISE, seed, step, places, shape),
        uniform(Stream.TIME, seed, step, places, () if numbers == 1 else (numbers,)),
        uniform(Stream.LABEL_DROPOUT, seed, step, places) < label_dropout,
    )


class StepDraws:
    """`draw` for the steps of a run: the same numbers, but small steps drawn several at once, which costs as much.

    On the CPU only, where the places are those of the call before: they are not where a step comes in micro-batches,
    and elsewhere to compare them would make the host wait.
    """

    def __init__(self, seed: int, label_dropout: float, numbers: int = 1) -> None:
        self._seed, self._label_dropout, self._numbers = seed, label_dropout, numbers
        self._places = torch.empty(0, dtype=torch.int64)
        self._first = 0
        self._shape: tuple[int, ...] = ()
        self._drawn: list[Draws] = []

    def __call__(self, step: int, places: Tensor, shape: tuple[int, ...]) -> Draws:
        """The randomness of samples ``places`` (B,) in ``step``, on their device; ``shape`` is (C, ...)."""
        if places.device.type != "cpu":
            return draw(self._seed, step, places, shape, self._label_dropout, self._numbers)
        again = torch.equal(places, self._places) and shape == self._shape
        if not (again and self._first <= step < self._first + len(self._drawn)):
            count = max(1, NUMBERS_DRAWN // (len(places) * math.prod(shape))) if again else 1
            self._first, self._shape, self._places = step, shape, places.clone()
            self._drawn = self._draw(torch.arange(step, step + count))
        return self._drawn[step - self._first]

    def _draw(self, steps: Tensor) -> list[Draws]:
        """Draw the randomness of each of ``steps``, for the places and the shape of this call."""
        size, each = len(self._places), steps.repeat_interleave(len(self._places))
        again = self._places.repeat(len(steps))
        together = draw(self._seed, each, again, self._shape, self._label_dropout, self._numbers)
        parts = (torch.split(numbers, size) for numbers in (together.x0, together.u, together.dropped))
        return [Draws(*numbers) for numbers in zip(*parts, strict=True)]
