"""Reading ahead of the training loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from torch import Tensor

S = TypeVar("S", bound=tuple[Any, ...])


def samples(batch: tuple[Any, ...]) -> int:
    """How many samples a (nested) NamedTuple of tensors holds."""
    first = batch[0]
    return samples(first) if isinstance(first, tuple) else len(first)


def rows(batch: S, which: slice) -> S:
    """Some samples of a (nested) NamedTuple of tensors."""
    return each(batch, lambda tensor: tensor[which])


def each(batch: S, change: Callable[[Tensor], Tensor]) -> S:
    """The same (nested) NamedTuple with every tensor changed; None stays None."""
    make: Any = type(batch)
    parts = (each(x, change) if isinstance(x, tuple) else None if x is None else change(x) for x in batch)
    changed: S = make(*parts)
    return changed


S = TypeVar("S")


def read_ahead(read: Callable[[int], S], steps: Iterable[int], ahead: int = 2) -> Iterator[S]:
    """``read(step)`` for each step in turn, with up to ``ahead`` more being read by a thread meanwhile.

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
