"""Batches on their way to the training loop: read ahead, and of any loader."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from lwd.errors import UserError

S = TypeVar("S")


def read_ahead(read: Callable[[int], S], steps: Iterable[int], ahead: int = 2) -> Iterator[S]:
    """Yield ``read(step)`` for each step in turn, with up to ``ahead`` more being read by a thread meanwhile.

    Reading lets go of Python's lock, and a thread, unlike a worker process, hands batches over without a copy. What
    reading raises comes out of the iterator at its step.
    """
    pool, pending = ThreadPoolExecutor(1, "read-ahead"), deque[Future[S]]()
    try:
        for step in steps:
            pending.append(pool.submit(read, step))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class Cycled:
    """The batches of a plain loader, over and over, one a step, each with its samples' places: as step data.

    A batch is ``x1`` or ``(x1, condition)``. Steps come in order, whatever number they have: a run that goes on after a
    kill sees the loader from its start. Raises UserError for a loader without batches.
    """

    def __init__(self, loader: Iterable[Any], rank: int = 0) -> None:
        self._loader, self._rank = loader, rank
        self._batches: Iterator[Any] = iter(())

    def __getitem__(self, step: int) -> tuple[tuple[Tensor, Any], Tensor]:
        batch = next(self._batches, None)
        if batch is None:
            self._batches = iter(self._loader)
            batch = next(self._batches, None)
        if batch is None:
            raise UserError("the loader has no batches: is it a generator that was used up, or an empty data set?")
        x1, condition = (batch, None) if isinstance(batch, Tensor) else (batch[0], batch[1] if len(batch) > 1 else None)
        return (x1, condition), torch.arange(len(x1)) + self._rank * len(x1)

    def images(self, step: int) -> None:
        """None: which images of a plain loader make a step is not known."""
