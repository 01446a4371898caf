"""Independent jobs side by side: small runs use a machine's cores far better as one process each than as threads."""

from __future__ import annotations

import itertools
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
    function: Callable[[T], R], jobs: Sequence[T], title: str, units: int = 1, processes: int = 0, show: bool = True
) -> list[R]:
    """``function`` of each job, in order; ``function`` and the jobs must be picklable.

    One progress bar counts what the jobs' own bars count, about ``units`` for each job. ``processes``: see `workers`.
    Each process gets its share of the cores and, of several GPUs, one, in turn. The first exception is raised
    again here, the other jobs being ended. Asked to stop (`Preemption`), it passes that on and raises Preempted once
    every job has saved or ended.
    """
    cores = os.cpu_count() or 1
    count = min(len(jobs), workers(processes))
    with progress_bar(title, units * len(jobs), show=show) as advance:
        if count <= 1:
            with forwarding(advance):
                return [function(job) for job in jobs]
        context = multiprocessing.get_context("spawn")
        counts: SimpleQueue[int] = context.SimpleQueue()
        gpus: SimpleQueue[str] = context.SimpleQueue()
        for gpu in itertools.islice(itertools.cycle(devices()), count):
            gpus.put(gpu)
        start = (cores // count, counts, gpus if devices() else None)
        pool = ProcessPoolExecutor(count, context, initializer=_start_worker, initargs=start)
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


def _start_worker(threads: int, counts: SimpleQueue[int], gpus: SimpleQueue[str] | None) -> None:
    """Take a share of the cores and a GPU, and end with the parent, however that ends."""
    global _counts  # noqa: PLW0603 - what a pool's initialiser is for
    _counts = counts
    if gpus is not None:
        os.environ[VISIBLE] = gpus.get()  # CUDA reads it at its first use, which is yet to come
    torch.set_num_threads(max(1, threads))
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
