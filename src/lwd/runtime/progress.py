"""Progress bars with time left, on the main process only; silent where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True)

Advance = Callable[[int], None]

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
def progress_bar(title: str, total: int, done: int = 0, show: bool = True) -> Iterator[Bar]:
    """A bar over ``total`` things of which ``done`` are finished already.

    Inside `forwarding` no bar is drawn: what it counts goes to the bar above, and notes go nowhere.
    """
    if _sinks:
        _sinks[-1](done)
        yield Bar(_sinks[-1])
        return
    counts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    columns = (*counts, TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console, disable=not show, transient=True) as bars:
        task = bars.add_task(title, total=total, completed=done, note="")
        yield Bar(lambda count: bars.advance(task, count), lambda words: bars.update(task, note=words))


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
