"""Processes that share out jobs, each behind a pipe of its own.

concurrent.futures' workers share queues and their locks: one that dies while it waits for work, as at a signal, holds
the lock for ever, and the others and the pool hang. Here nothing is shared, and the end of a pipe tells of an end.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from lwd.errors import Preempted, UserError
from lwd.runtime.preemption import ASKED, SIGNALS, ignore_signals, stopped
from lwd.runtime.progress import Advance, forwarding

T = TypeVar("T")
R = TypeVar("R")

POLL_S = 0.2
PAUSE_S = 0.02
"""Between two readings, so that counts are read in bulk."""
GRACE_S = 10
"""What a process may take to end when its jobs are done; then it is killed."""


@dataclass(eq=False)
class _Member:
    process: BaseProcess
    job: int | None = None


class Team(Generic[T, R]):
    """Does ``function`` of each job in the processes that `hire` starts; `listen` until there is none left.

    A process that is asked to stop inside a `Preemption` saves first; elsewhere the signal just ends it.
    """

    def __init__(self, title: str, function: Callable[[T], R], jobs: Sequence[T], advance: Advance) -> None:
        self._title, self._function, self._jobs, self._advance = title, function, jobs, advance
        self._todo = deque(range(len(jobs)))
        self._done: dict[int, R] = {}
        self._members: dict[Connection, _Member] = {}
        self._leaving: dict[_Member, float] = {}  # until when they may
        self._error: BaseException | None = None

    def hire(self, prepare: Callable[..., None], *arguments: object) -> None:
        """Start a process, which calls ``prepare(*arguments)`` and then takes jobs."""
        context = multiprocessing.get_context("spawn")
        pipe, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, prepare, arguments))
        process.start()
        theirs.close()  # else its end would not show
        self._members[pipe] = _Member(process)
        self._hand_out(pipe)

    def listen(self) -> bool:
        """Take in what the processes say for a moment, and hand out jobs; False: the last process has ended."""
        wait([*self._members, *(member.process.sentinel for member in self._leaving)], POLL_S)
        time.sleep(PAUSE_S)
        for pipe, member in list(self._members.items()):
            dead = not member.process.is_alive()  # before the last look into its pipe
            while pipe in self._members and pipe.poll():
                self._hear(pipe)
            if dead and pipe in self._members:  # a child of its own may hold the pipe open
                self._part(pipe)
        self._see_off()
        return bool(self._members or self._leaving)

    def stop(self, number: int = signal.SIGTERM, error: BaseException | None = None) -> None:
        """Hand out no more, and ask the processes to stop. `results` will raise ``error``, by default Preempted.

        The first error counts, but any other goes before Preempted. The processes, which do not hear Ctrl-C, are asked
        by SIGTERM in its place.
        """
        error = error or stopped(number, f"{self._title}: {ASKED}")
        number = signal.SIGTERM if number == signal.SIGINT else number
        first = self._error is None
        if first or (isinstance(self._error, Preempted) and not isinstance(error, Preempted)):
            self._error = error
        self._todo.clear()
        for member in self._members.values() if first else ():
            if member.process.pid is not None and member.process.is_alive():
                os.kill(member.process.pid, number)

    def kill(self) -> None:
        """End the processes, whatever they do."""
        for process in [member.process for member in (*self._members.values(), *self._leaving)]:
            process.kill()

    def results(self) -> list[R]:
        """In the jobs' order. Raises what a job raised; UserError where a process died; Preempted after `stop`."""
        if self._error is not None:
            raise self._error
        return [self._done[index] for index in range(len(self._jobs))]

    def _hand_out(self, pipe: Connection) -> None:
        """The next job, or None: it may go."""
        job = self._members[pipe].job = self._todo.popleft() if self._todo else None
        with suppress(ConnectionError):  # it is dead, which `listen` will find
            pipe.send(None if job is None else (self._function, self._jobs[job]))

    def _hear(self, pipe: Connection) -> None:
        member = self._members[pipe]
        try:
            kind, value = pipe.recv()
        except (EOFError, ConnectionError):
            self._part(pipe)
            return
        if kind == "count":
            self._advance(value)
        elif kind == "result":
            assert member.job is not None
            self._done[member.job] = value
            self._hand_out(pipe)
        else:
            member.job = None
            self.stop(error=value)

    def _part(self, pipe: Connection) -> None:
        """From a process that has ended, or is about to."""
        pipe.close()
        self._leaving[self._members.pop(pipe)] = time.monotonic() + GRACE_S

    def _see_off(self) -> None:
        """Those that leave: kill who lingers, and look how they ended."""
        for member, deadline in list(self._leaving.items()):
            process = member.process
            if process.is_alive():
                if time.monotonic() < deadline:
                    continue
                process.kill()
            process.join()
            del self._leaving[member]
            if member.job is not None:
                self._died(member.job, process.exitcode or 0)

    def _died(self, job: int, code: int) -> None:
        if -code in SIGNALS:
            self.stop()
            return
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        which = f"{self._title}: the process of job {job + 1} of {len(self._jobs)}"
        self.stop(error=UserError(f"{which} {how}; if memory ran out, use fewer processes, and run it again"))


def _work(pipe: Connection, prepare: Callable[..., None], arguments: Sequence[object]) -> None:
    """A process's life: until it is told to go, a job fails, or the parent ends, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, too, which then stops us
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    try:
        prepare(*arguments)
        _take_jobs(pipe)
    finally:
        pipe.close()  # tells the parent at once: the interpreter waits for threads that a job left behind


def _take_jobs(pipe: Connection) -> None:
    lock = threading.Lock()  # bars may be advanced by threads

    def say(kind: str, value: Any) -> None:
        with lock:
            pipe.send((kind, value))

    with suppress(EOFError, ConnectionError):  # the parent has ended
        while (task := pipe.recv()) is not None:
            function, job = task
            try:
                with forwarding(lambda count: say("count", count)):
                    result = function(job)
                say("result", result)
            except BaseException as error:  # noqa: BLE001 - whatever ends a job is told to whoever gave it out
                ignore_signals()  # outside `Preemption` a second one would end it before it has told
                say("error", _portable(error))
                return


def _follow(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _portable(error: BaseException) -> BaseException:
    """``error`` with its traceback as a note; where it cannot be pickled a RuntimeError that quotes it."""
    trace = "".join(traceback.format_exception(error))
    error.add_note(trace)
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - what was just pickled
    except Exception:  # noqa: BLE001 - a class of anyone's may fail in any way
        return RuntimeError(trace)
    return error
