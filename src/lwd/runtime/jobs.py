"""Independent jobs side by side: small runs use a machine's cores far better as one process each than as threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from lwd.errors import Preempted
from lwd.runtime.preemption import Preemption, TimeLimit
from lwd.runtime.progress import forwarding, progress_bar
from lwd.runtime.team import Team

T = TypeVar("T")
R = TypeVar("R")

MAX_PROCESSES = 8
VISIBLE = "CUDA_VISIBLE_DEVICES"


def workers(processes: int = 0) -> int:
    """``processes``, or for 0 one per GPU, or where there is none one per core, up to 8."""
    if processes:
        return processes
    cores = min(os.cpu_count() or 1, MAX_PROCESSES)
    return max(1, torch.cuda.device_count()) if torch.cuda.is_available() else cores


def devices() -> list[str]:
    """The GPUs to deal out to the processes, by the names that CUDA_VISIBLE_DEVICES takes; empty: fewer than two."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count <= 1:
        return []
    named = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return named[:count] or [str(index) for index in range(count)]


def run_jobs(
    function: Callable[[T], R],
    jobs: Sequence[T],
    title: str,
    units: int = 1,
    processes: int = 0,
    show: bool = True,
    limit: TimeLimit = TimeLimit(),  # noqa: B008
) -> list[R]:
    """``function`` of each job, in order; ``function`` and the jobs must be picklable.

    One progress bar counts what the jobs' own bars count, about ``units`` for each job. ``processes``: see `workers`.
    Each process gets its share of the cores and, of several GPUs, one, in turn. The first exception is raised
    again here, the other jobs being ended. Asked to stop (`Preemption`), also by its time ``limit`` (where one process
    does it all, the jobs have theirs), it passes that on and raises Preempted once
    every job has saved or ended; but where one process does it all, a signal outside a job's own `Preemption` just ends
    it. Raises UserError where a process dies, which most often is of too little memory.
    """
    count = min(len(jobs), workers(processes))
    with progress_bar(title, units * len(jobs), show=show) as advance:
        if count <= 1:
            with forwarding(advance):
                return [function(job) for job in jobs]
        team = Team(title, function, jobs, advance)
        with Preemption(limit=limit) as preemption:
            try:
                dealt = devices()
                for index in range(count):
                    gpu = dealt[index % len(dealt)] if dealt else None
                    team.hire(_prepare, max(1, (os.cpu_count() or 1) // count), gpu)
                while team.listen():
                    if preemption.signal is not None:
                        team.stop(preemption.signal)
                    elif limit.up:
                        team.stop(error=Preempted(f"{title}: {limit}, what is finished or saved is kept; run it again"))
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt) and preemption.signal is not None:  # the second Ctrl-C
                    team.kill()
                    raise
                team.stop(error=error)
                while team.listen():
                    pass
                raise
            return team.results()


def _prepare(threads: int, gpu: str | None) -> None:
    """In a new process: take a share of the cores and a GPU."""
    if gpu is not None:
        os.environ[VISIBLE] = gpu  # CUDA reads it at its first use, which is yet to come
    torch.set_num_threads(threads)
