"""Progress bars with time left, on the main process only; silent where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True)

Advance = Callable[[int], None]


@contextmanager
def progress_bar(title: str, total: int, done: int = 0, show: bool = True) -> Iterator[Advance]:
    """A bar over ``total`` things of which ``done`` are finished already; yields a function that advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not show, transient=True) as bars:
        task = bars.add_task(title, total=total, completed=done)
        yield lambda count: bars.advance(task, count)


def say(message: str, show: bool = True) -> None:
    """One line to the person at the terminal."""
    if show:
        console.print(message, highlight=False, soft_wrap=True)
