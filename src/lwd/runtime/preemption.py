"""Being asked to stop: SIGTERM (schedulers, `kill`), SIGUSR1 (Slurm's --signal), SIGHUP (a terminal that goes away) and
SIGINT (Ctrl-C) end a run after the present step, and so does a limit of its time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, TracebackType
from typing import Self, TypeVar

import psutil
import torch
from torch import Tensor

from lwd.errors import Interrupted, Preempted

T = TypeVar("T")

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


def since_start() -> float:
    """Seconds since this process started."""
    return time.time() - float(psutil.Process().create_time())


class TimeLimit:
    """``seconds`` (None: any) that a process may take by its ``clock``, which counts from its start."""

    def __init__(self, seconds: float | None = None, clock: Callable[[], float] = since_start) -> None:
        self.seconds, self._clock = seconds, clock

    @property
    def up(self) -> bool:
        """Whether they are over."""
        return self.seconds is not None and self._clock() >= self.seconds

    def __str__(self) -> str:
        return f"the time limit of {self.seconds or 0:g} s is reached"


class Preemption:
    """Within the block the signals only leave a note; `requested` tells.

    A second Ctrl-C raises KeyboardInterrupt at once; with several processes it does not, since a launcher passes the
    first one on, so that it comes twice. Signals that were ignored before, as by nohup or in a script's background,
    stay ignored.

    A note that came too late for it, as during the last save, is not lost: leaving the block raises Preempted. (Not
    with several processes, which would have to agree.)

    ``mean`` averages a tensor over the processes; None where there is one. Where the time ``limit`` is up on any of
    them, it is as if a signal had come.
    """

    def __init__(
        self,
        mean: Callable[[Tensor], Tensor] | None = None,
        device: torch.device = torch.device("cpu"),  # noqa: B008
        limit: TimeLimit = TimeLimit(),  # noqa: B008
    ) -> None:
        self._mean, self._device, self._limit = mean, device, limit
        self._previous: dict[int, object] = {}
        self.signal: int | None = None
        self._interrupts = 0

    def requested(self, step: int, last: bool = False) -> bool:
        """Whether to stop after ``step`` steps; the same answer on every process. ``last``: there is no other step."""
        if self._mean is None:
            return self._here
        if step % AGREE_EVERY and not last:
            return False
        asked = torch.tensor(float(self._here), device=self._device)
        return bool(self._mean(asked) > 0)

    @property
    def why(self) -> str:
        """What ended the run, in words."""
        return str(self._limit) if self.signal is None and self._limit.up else "asked to stop"

    @property
    def _here(self) -> bool:
        """Whether this process has a reason to stop."""
        return self.signal is not None or self._limit.up

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


class InTime:
    """Pieces of work, each finished and kept by itself, that are done until the time ``limit``; the next run does the
    others.

    Every process leaves when its own time is up. ``anywhere`` says whether something holds on any of them, the same
    answer on each. One piece is done in any case, so that runs that are started again and again come to an end.
    """

    def __init__(self, limit: TimeLimit, anywhere: Callable[[bool], bool]) -> None:
        self._limit, self._anywhere = limit, anywhere
        self._left = self._begun = False

    def of(self, pieces: Iterable[T]) -> Iterator[T]:
        """Yield pieces as long as there is time."""
        for piece in pieces:
            if self._begun and self.leave():
                return
            self._begun = True
            yield piece

    def leave(self) -> bool:
        """Whether to leave the pieces that are still there; to be asked after one."""
        self._left = self._left or self._limit.up
        return self._left

    def end(self, where: str) -> None:
        """Raise Preempted where any process left a piece. All processes must call it, when what they did is kept."""
        if self._limit.seconds is not None and self._anywhere(self._left):
            raise Preempted(f"{where}: {self._limit}, what is finished is kept; run it again to go on")
