"""Jobs side by side: results in order, and the first exception comes through as it is."""

import os
import threading
import time

import pytest
import torch

from children import HANG_S, wait_until
from lwd.errors import UserError
from lwd.runtime import jobs as jobs_module
from lwd.runtime import team
from lwd.runtime.jobs import devices, run_jobs, workers


def square(x):
    return x * x


def wait_for_next(job):
    """Job 0 ends only after job 1, which takes a second process. Returns the number, the process and its threads."""
    number, folder = job
    wait_until(lambda: number != 0 or (folder / "1").exists())
    (folder / str(number)).touch()
    return number, os.getpid(), torch.get_num_threads()


def here(number):
    return number, os.getpid()


def complain(job):
    """Job 1 fails at once; the others take far longer than the test waits for anything."""
    if job == 1:
        raise UserError("data: channel 3 is constant")
    time.sleep(100 * HANG_S)


def wait_and_see(job):
    """Which GPUs this process may use; as in `wait_for_next`."""
    return wait_for_next(job)[1], os.environ.get("CUDA_VISIBLE_DEVICES")


def linger(job):
    """Leaves a thread behind, for which the interpreter waits at its end."""
    wait_for_next(job)
    threading.Thread(target=time.sleep, args=(100 * HANG_S,)).start()
    return job[0]


def crash(job):
    if job == 2:
        raise ZeroDivisionError("job 2")
    return job


@pytest.mark.parametrize(("jobs", "processes"), [([1, 2, 3], 1), ([1], 2), ([1], 0)])
def test_one_job_or_one_process_stays_in_this_process(jobs, processes):
    assert run_jobs(here, jobs, "here", processes=processes, show=False) == [(number, os.getpid()) for number in jobs]


def test_without_jobs_nothing_happens():
    assert run_jobs(square, [], "nothing", show=False) == []


def test_results_come_in_the_order_of_the_jobs(tmp_path):
    results = run_jobs(wait_for_next, [(number, tmp_path) for number in range(5)], "order", processes=2, show=False)
    assert [number for number, _, _ in results] == [0, 1, 2, 3, 4]
    pids = {pid for _, pid, _ in results}
    assert len(pids) == 2 and os.getpid() not in pids
    # Two workers share the machine's cores.
    assert {threads for _, _, threads in results} == {max(1, (os.cpu_count() or 1) // 2)}


def test_a_user_error_arrives_as_one_and_ends_the_other_jobs():
    with pytest.raises(UserError) as caught:
        run_jobs(complain, [0, 1, 2, 3], "complain", processes=2, show=False)
    assert type(caught.value) is UserError and str(caught.value) == "data: channel 3 is constant"


def test_processes_that_linger_are_killed(monkeypatch, tmp_path):
    monkeypatch.setattr(team, "GRACE_S", 1)
    done = run_jobs(linger, [(number, tmp_path) for number in range(2)], "linger", processes=2, show=False)
    assert done == [0, 1]


def test_in_one_process_exceptions_come_through_too():
    done = []

    def job(number):
        done.append(crash(number))

    with pytest.raises(ZeroDivisionError, match="job 2"):
        run_jobs(job, [0, 1, 2, 3], "crash", processes=1, show=False)
    assert done == [0, 1]


@pytest.mark.parametrize(
    ("gpus", "visible", "dealt", "default"),
    [(0, None, [], None), (1, None, [], 1), (2, None, ["0", "1"], 2), (2, "5,GPU-a", ["5", "GPU-a"], 2)],
)
def test_several_gpus_are_dealt_out(monkeypatch, gpus, visible, dealt, default):
    monkeypatch.setattr(jobs_module.torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(jobs_module.torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices() == dealt
    assert workers() == (default or min(os.cpu_count(), 8)) and workers(3) == 3


def test_each_process_sees_its_own_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(jobs_module, "devices", lambda: ["5", "7"])
    results = run_jobs(wait_and_see, [(number, tmp_path) for number in range(3)], "gpus", processes=2, show=False)
    assert len(set(results)) == 2 and {gpu for _, gpu in results} == {"5", "7"}
