"""Independent jobs side by side: small runs use a machine's cores far better as one process each than as threads."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import torch

from lwd.runtime.progress import progress_bar

T = TypeVar("T")
R = TypeVar("R")

MAX_PROCESSES = 8


def run_jobs(
    function: Callable[[T], R], jobs: Sequence[T], title: str, processes: int = 0, show: bool = True
) -> list[R]:
    """``function`` of each job, in order; ``function`` and the jobs must be picklable.

    ``processes`` 0: one per core, up to 8, where there is no GPU; else one. Each process gets its share of the cores.
    The first exception is raised again here, the other jobs being ended.
    """
    cores = os.cpu_count() or 1
    count = min(len(jobs), processes or (1 if torch.cuda.is_available() else min(cores, MAX_PROCESSES)))
    with progress_bar(title, len(jobs), show=show) as advance:
        if count <= 1:
            results = []
            for job in jobs:
                results.append(function(job))
                advance(1)
            return results
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(count, context, initializer=_start_worker, initargs=(max(1, cores // count),))
        try:
            futures = [pool.submit(function, job) for job in jobs]
            for future in as_completed(futures):
                future.result()
                advance(1)
            return [future.result() for future in futures]
        except BaseException:
            for worker in list(pool._processes.values()):
                worker.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(threads: int) -> None:
    """Take a share of the cores, and end with the parent, however that ends."""
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
