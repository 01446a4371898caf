"""Being asked to stop: SIGTERM (schedulers, `kill`), SIGUSR1 (Slurm's --signal), SIGHUP (a terminal that goes away) and
SIGINT (Ctrl-C) end a run after the present step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

import torch
from torch import Tensor

from lwd.errors import Interrupted, Preempted

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT") if hasattr(signal, name))
ASKED = "asked to stop; what is finished or saved is kept, the same command goes on unless compute.resume=false"
AGREE_EVERY = 10
"""With several processes, after how many steps they ask each other: a signal may reach only one of them."""


def stopped(number: int | None, message: str) -> Preempted:
    """What a run raises that signal ``number`` stopped."""
    return Interrupted(message) if number == signal.SIGINT else Preempted(message)


def ignore_signals(worker: int = 0) -> None:
    """For worker processes, which a scheduler signals together with their parent: the parent ends them in its time."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class Preemption:
    """Within the block the signals only leave a note; `requested` tells.

    A second Ctrl-C raises KeyboardInterrupt at once; with several processes it does not, since a launcher passes the
    first one on, so that it comes twice. Signals that were ignored before, as by nohup or in a script's background,
    stay ignored.

    A note that came too late for it, as during the last save, is not lost: leaving the block raises Preempted. (Not
    with several processes, which would have to agree.)

    ``mean`` averages a tensor over the processes; None where there is one.
    """

    def __init__(
        self,
        mean: Callable[[Tensor], Tensor] | None = None,
        device: torch.device = torch.device("cpu"),  # noqa: B008
    ) -> None:
        self._mean, self._device = mean, device
        self._previous: dict[int, object] = {}
        self.signal: int | None = None
        self._interrupts = 0

    def requested(self, step: int, last: bool = False) -> bool:
        """Whether to stop after ``step`` steps; the same answer on every process. ``last``: there is no other step."""
        if self._mean is None:
            return self.signal is not None
        if step % AGREE_EVERY and not last:
            return False
        asked = torch.tensor(float(self.signal is not None), device=self._device)
        return bool(self._mean(asked) > 0)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._previous = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}
        if kind is None and self.signal is not None and self._mean is None:
            raise stopped(self.signal, ASKED)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1 and self._mean is None:
            raise KeyboardInterrupt
