"""Reading ahead of the training loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

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
