"""Work in a thread beside the main one, a piece at a time."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self


class Background:
    """Runs one piece of work in a thread; the next one waits for it.

    ``lowly``: the thread takes only the processor time that nobody else wants (on Linux, where threads have priorities
    of their own).

    Use it as a context manager: leaving waits for what is under way. What a piece raises comes out of the next `start`
    or `wait`, or on leaving.
    """

    def __init__(self, name: str, lowly: bool = False) -> None:
        self._pool = ThreadPoolExecutor(1, name, _step_back if lowly else None)
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


def _step_back() -> None:
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
