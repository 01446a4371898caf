"""Being asked to stop: SIGTERM (schedulers, `kill`) and SIGUSR1 (Slurm's --signal) end a run after the present step."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

import torch
from torch import Tensor

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
AGREE_EVERY = 10
"""With several processes, after how many steps they ask each other: a signal may reach only one of them."""


class Preemption:
    """Within the block the signals only leave a note; `requested` tells. A second signal acts as it did before.

    ``mean`` averages a tensor over the processes; None where there is one.
    """

    def __init__(self, mean: Callable[[Tensor], Tensor] | None, device: torch.device) -> None:
        self._mean, self._device = mean, device
        self._owner = os.getpid()
        self._previous: dict[int, object] = {}
        self.signal: int | None = None

    def requested(self, step: int) -> bool:
        """Whether to stop after ``step`` steps; the same answer on every process."""
        if self._mean is None:
            return self.signal is not None
        if step % AGREE_EVERY:
            return False
        asked = torch.tensor(float(self.signal is not None), device=self._device)
        return bool(self._mean(asked) > 0)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a forked loader worker, which must die of it
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.signal = number
        self._restore()
