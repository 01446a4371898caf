"""The order of an epoch in which images are mixed among a few shards at a time: what a bounded cache can follow."""

from __future__ import annotations

from itertools import accumulate

from torch import Tensor

from lwd.errors import UserError
from lwd.runtime.seeding import cut_batch, shard_windows, window_order


class WindowOrder:
    """Epochs over shards of ``lengths`` images: shards in random order, ``window`` at a time, their images mixed.

    A pure function of (seed, step). Raises UserError where a batch is larger than a window.
    """

    def __init__(self, lengths: tuple[int, ...], window: int, seed: int, batch: int) -> None:
        self.lengths, self.window, self.seed, self.batch = lengths, window, seed, batch
        self.size = sum(lengths)
        if min(window, len(lengths)) * max(lengths) < batch <= self.size:
            raise UserError(
                f"data.window={window}: so many shards hold {window * max(lengths)} images, a batch has {batch}; "
                "choose more"
            )

    def images(self, step: int) -> Tensor:
        """The images of the whole step, over all processes: (batch,) int64."""
        return cut_batch(self._epoch, step, self.batch, self.size)

    def _epoch(self, epoch: int) -> Tensor:
        return window_order(self.seed, epoch, self.lengths, self.window)

    def ahead(self, step: int) -> list[int]:
        """The shards of the windows that the step lies in and of the one after them, in the order of their use."""
        start, stop = step * self.batch, (step + 1) * self.batch
        found: list[int] = []
        epoch = start // self.size
        while True:
            windows = shard_windows(self.seed, epoch, len(self.lengths), self.window)
            ends = accumulate(sum(self.lengths[shard] for shard in some) for some in windows)
            for shards, end in zip(windows, ends, strict=True):
                if epoch * self.size + end <= start:
                    continue
                found += shards
                if epoch * self.size + end - sum(self.lengths[shard] for shard in shards) >= stop:
                    return list(dict.fromkeys(found))
            epoch += 1
