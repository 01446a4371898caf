"""Independent jobs side by side: small runs use a machine's cores far better as one process each than as threads."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from multiprocessing.queues import SimpleQueue
from typing import TypeVar

import torch

from lwd.errors import Preempted
from lwd.runtime.preemption import Preemption
from lwd.runtime.progress import Advance, forwarding, progress_bar

T = TypeVar("T")
R = TypeVar("R")

MAX_PROCESSES = 8
POLL_S = 0.2


def run_jobs(
    function: Callable[[T], R], jobs: Sequence[T], title: str, units: int = 1, processes: int = 0, show: bool = True
) -> list[R]:
    """``function`` of each job, in order; ``function`` and the jobs must be picklable.

    One progress bar counts what the jobs' own bars count, about ``units`` for each job. ``processes`` 0: one per core,
    up to 8, where there is no GPU; else one. Each process gets its share of the cores. The first exception is raised
    again here, the other jobs being ended. Asked to stop (`Preemption`), it passes that on and raises Preempted once
    every job has saved or ended.
    """
    cores = os.cpu_count() or 1
    count = min(len(jobs), processes or (1 if torch.cuda.is_available() else min(cores, MAX_PROCESSES)))
    with progress_bar(title, units * len(jobs), show=show) as advance:
        if count <= 1:
            with forwarding(advance):
                return [function(job) for job in jobs]
        context = multiprocessing.get_context("spawn")
        counts: SimpleQueue[int] = context.SimpleQueue()
        pool = ProcessPoolExecutor(count, context, initializer=_start_worker, initargs=(cores // count, counts))
        try:
            with Preemption() as preemption:
                futures = [pool.submit(_run_forwarding, function, job) for job in jobs]
                return _collect(futures, counts, advance, lambda: _pass_on(preemption, pool, title))
        except BaseException:
            for worker in list((pool._processes or {}).values()):  # None once the pool is shut down
                worker.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _pass_on(preemption: Preemption, pool: ProcessPoolExecutor, title: str) -> None:
    """Where a signal came, send it to the jobs, wait for them, and raise Preempted."""
    if preemption.signal is None:
        return
    for worker in list(pool._processes.values()):
        if worker.pid is not None and worker.is_alive():
            os.kill(worker.pid, preemption.signal)
    pool.shutdown(wait=True, cancel_futures=True)
    raise Preempted(f"{title}: asked to stop; what is finished or saved is kept, the same command goes on")


def _collect(
    futures: Sequence[Future[R]], counts: SimpleQueue[int], advance: Advance, look: Callable[[], None]
) -> list[R]:
    pending = set(futures)
    while pending:
        look()
        finished, pending = wait(pending, timeout=POLL_S)
        while not counts.empty():
            advance(counts.get())
        for future in finished:
            future.result()
    return [future.result() for future in futures]


_counts: SimpleQueue[int] | None = None


def _run_forwarding(function: Callable[[T], R], job: T) -> R:
    assert _counts is not None
    with forwarding(_counts.put):
        return function(job)


def _start_worker(threads: int, counts: SimpleQueue[int]) -> None:
    """Take a share of the cores, and end with the parent, however that ends."""
    global _counts  # noqa: PLW0603 - what a pool's initialiser is for
    _counts = counts
    torch.set_num_threads(max(1, threads))
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
