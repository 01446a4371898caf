"""Processes that a test starts: they hear signals as in a terminal, and whatever becomes of the test, they end with it.

No deadline here says how fast a machine must be. ``HANG_S`` only turns a hang into a failure.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

HANG_S = 600


def unwind_on_signals() -> None:
    """In this process: SIGTERM and SIGHUP raise KeyboardInterrupt, so that tests end what they started.

    A worker of pytest-xdist hears SIGINT, too, even if the suite was born to ignore it: so its controller ends it.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    if "PYTEST_XDIST_WORKER" in os.environ:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.register_at_fork(after_in_child=_end_on_signals)


def _end_on_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.default_int_handler:
            signal.signal(number, signal.SIG_DFL)


def hear_signals() -> None:
    """In a child, before it begins: what the suite was born to ignore (``nohup make test &``) is heard again."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def started(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    stdout: int | IO[Any] = subprocess.DEVNULL,
    stderr: int | IO[Any] | None = subprocess.PIPE,
) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own, on one thread; at the end of the block all that is left of it is killed."""
    process = subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"} if environment is None else environment,
        stdout=stdout,
        stderr=stderr,
        text=True,
        start_new_session=True,
        preexec_fn=hear_signals,  # noqa: PLW1509 - it takes no lock
    )
    try:
        yield process
    finally:
        kill_all(process.pid)
        with process:  # closes its pipes and waits
            pass


def kill_all(leader: int) -> None:
    """Kill the process ``leader``, its descendants (torchrun gives its workers sessions of their own) and its group."""
    with suppress(psutil.NoSuchProcess):
        for descendant in psutil.Process(leader).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                descendant.kill()
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def wait_until(
    condition: Callable[[], object], process: subprocess.Popen[str] | None = None, every: float = 0.02
) -> None:
    """Until it holds; fails where the process ends before."""
    limit = time.monotonic() + HANG_S
    while not condition():
        if process is not None and process.poll() is not None:
            said = process.stderr.read() if process.stderr else ""
            raise AssertionError(f"ended with {process.returncode} before its time: {said}")
        assert time.monotonic() < limit, "hangs"
        time.sleep(every)


def filled(file: Path) -> bool:
    """Whether it is there and has content."""
    return file.exists() and file.stat().st_size > 0


def said_at_the_end(process: subprocess.Popen[str]) -> str:
    """Wait for the end; what it said on stderr."""
    return process.communicate(timeout=HANG_S)[1]
