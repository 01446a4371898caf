"""Work in a thread beside the main one, a piece at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self


class Background:
    """Runs one piece of work in a thread; the next one waits for it.

    Use it as a context manager: leaving waits for what is under way. What a piece raises comes out of the next `start`
    or `wait`, or on leaving.
    """

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._last: Future[None] | None = None

    def start(self, work: Callable[..., None], *arguments: Any) -> None:
        """Wait for the piece before, then begin with this one."""
        self.wait()
        self._last = self._pool.submit(work, *arguments)

    def wait(self) -> None:
        """Until the piece under way is done."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        finally:
            self._pool.shutdown()
