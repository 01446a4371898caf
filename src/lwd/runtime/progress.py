"""Progress with time left, on the main process only: bars on a terminal, now and then a line where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True)

Advance = Callable[[int], None]

LINE_EVERY = 30.0
"""Seconds between two lines of a log."""

_sinks: list[Advance] = []


@dataclass(frozen=True)
class Bar:
    """A bar that a call advances; ``note`` replaces the words at its end."""

    advance: Advance
    note: Callable[[str], None] = lambda words: None

    def __call__(self, count: int) -> None:
        """Advance by ``count``."""
        self.advance(count)


@contextmanager
def progress_bar(
    title: str, total: int, done: int = 0, show: bool = True, clock: Callable[[], float] = time.monotonic
) -> Iterator[Bar]:
    """A bar over ``total`` things of which ``done`` are finished already; lines where stderr is no terminal.

    Inside `forwarding` nothing is drawn: what it counts goes to the bar above, and notes go nowhere.
    """
    if _sinks:
        _sinks[-1](done)
        yield Bar(_sinks[-1])
        return
    if show and not console.is_terminal:
        lines = _Lines(title, total, done, clock)
        yield Bar(lines.advance, lines.note)
        lines.end()
        return
    counts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    columns = (*counts, TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console, disable=not show, transient=True) as bars:
        task = bars.add_task(title, total=total, completed=done, note="")
        yield Bar(lambda count: bars.advance(task, count), lambda words: bars.update(task, note=words))


class _Lines:
    """What a log file gets instead of a bar: a line every `LINE_EVERY` seconds, and one at the end of what took that
    long."""

    def __init__(self, title: str, total: int, done: int, clock: Callable[[], float]) -> None:
        self._title, self._total, self._first, self._done, self._clock = title, total, done, done, clock
        self._words, self._begun = "", clock()
        self._next = self._begun + LINE_EVERY

    def advance(self, count: int) -> None:
        self._done += count
        now = self._clock()
        if now >= self._next and self._done != self._total:
            self._next = now + LINE_EVERY
            rate = (self._done - self._first) / (now - self._begun)
            left = f"{_span((self._total - self._done) / rate)} left" if rate > 0 and self._done < self._total else ""
            self._print(self._count(), left, self._words)

    def note(self, words: str) -> None:
        self._words = words

    def end(self) -> None:
        took = self._clock() - self._begun
        if took >= LINE_EVERY:
            self._print(self._count(), f"took {_span(took)}", self._words)

    def _count(self) -> str:
        """Without the total where more was done than was thought."""
        return f"{self._done}/{self._total}" if self._done <= self._total else f"{self._done}"

    def _print(self, *parts: str) -> None:
        words = ", ".join(part for part in parts if part)
        console.print(f"{self._title}: {words}", highlight=False, soft_wrap=True, markup=False)


def _span(seconds: float) -> str:
    """Hours, minutes and seconds, as 0:12:05."""
    return str(timedelta(seconds=round(seconds)))


@contextmanager
def forwarding(sink: Advance) -> Iterator[None]:
    """Within this block every bar's counts go to ``sink``, and `say` is silent: for jobs that share one bar."""
    _sinks.append(sink)
    try:
        yield
    finally:
        _sinks.pop()


def say(message: str, show: bool = True) -> None:
    """One line to the person at the terminal."""
    if show and not _sinks:
        console.print(message, highlight=False, soft_wrap=True)
