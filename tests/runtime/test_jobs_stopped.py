"""Jobs side by side that are asked to stop, or whose processes are killed: they save, all end, nothing hangs."""

import os
import signal
import subprocess
import time
from contextlib import contextmanager, suppress

import pytest

from lwd.errors import Preempted, UserError
from lwd.runtime.jobs import run_jobs
from lwd.runtime.preemption import Preemption
from lwd.runtime.progress import progress_bar

SAVING_S = 1.0
LIMIT_S = 20
"""From a signal to the end of all; what has to end takes ``SAVING_S``, the rest is for a busy machine."""


def train(folder, name, saving=SAVING_S):
    """Steps until the signal, then saves, as `Engine.fit` does, counting on."""
    with progress_bar(name, 1) as bar, Preemption() as preemption:
        (folder / f"{name}.ready").write_text(str(os.getpid()))
        step = 0
        while not preemption.requested(step := step + 1):
            bar(1)
            time.sleep(0.001)
        for _ in range(10):
            time.sleep(saving / 10)
            bar(1)
        (folder / f"{name}.saved").touch()
        raise Preempted(f"{name}: asked to stop, saved after step {step}")


def sleep(folder, name):
    """A job, or a job's setup, outside any Preemption; longer than a test may take."""
    (folder / f"{name}.ready").write_text(str(os.getpid()))
    time.sleep(300)


def finish(folder, name):
    """Done at once: what its process does then is the pool's affair."""
    (folder / f"{name}.ready").write_text(str(os.getpid()))


def fail_to_save(folder, name):
    with Preemption() as preemption:
        (folder / f"{name}.ready").touch()
        while not preemption.requested(1):
            time.sleep(0.01)
        raise UserError(f"{name}: could not be written (No space left on device)")


def fail(folder, name):
    """Fails once the job beside it trains."""
    (folder / f"{name}.ready").touch()
    wait_for(folder / "a.ready")
    raise UserError(f"{name}: channel 3 is constant")


def leave_a_child(folder, name):
    """As a loader's worker: the child holds every pipe of its parent, and outlives it."""
    if os.fork() == 0:
        time.sleep(LIMIT_S)
        os._exit(0)
    sleep(folder, name)


def do(job):
    function, folder, name = job
    return function(folder, name)


def wait_for(*paths):
    deadline = time.monotonic() + 60
    while not all(path.exists() and path.stat().st_size >= 0 for path in paths):
        assert time.monotonic() < deadline, f"none of {paths} came"
        time.sleep(0.01)


def command(folder, functions):
    """What `lwd sweep` does about it: the exit code, and the one line in a file."""
    jobs = [(function, folder, name) for function, name in zip(functions, "abcdef", strict=False)]
    try:
        run_jobs(do, jobs, "sweep", processes=2, show=False)
    except Preempted as error:
        (folder / "said").write_text(str(error))
        return 75
    except UserError as error:
        (folder / "said").write_text(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


@contextmanager
def running(folder, functions):
    """`command` in a forked process and a session of its own; the process's number."""
    if not (pid := os.fork()):
        try:
            os.setsid()
            os._exit(command(folder, functions))
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def ended(pid):
    """Wait for the end, of all its children, too; returns the exit code."""
    deadline = time.monotonic() + LIMIT_S
    while not (done := os.waitpid(pid, os.WNOHANG))[0]:
        assert time.monotonic() < deadline, f"hangs: {in_session(pid)}"
        time.sleep(0.05)
    while left := in_session(pid):
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.05)
    return os.waitstatus_to_exitcode(done[1])


def in_session(pid):
    return subprocess.run(["pgrep", "-a", "-s", str(pid)], check=False, capture_output=True, text=True).stdout


@pytest.mark.parametrize("other", [sleep, finish], ids=["outside", "idle"])
def test_one_that_saves_beside_one_that_does_not(tmp_path, other):
    with running(tmp_path, [train, other]) as pid:
        wait_for(tmp_path / "a.ready", tmp_path / "b.ready")
        time.sleep(0.3)  # what is done at once has become idle
        os.kill(pid, signal.SIGTERM)
        assert ended(pid) == 75
    assert (tmp_path / "a.saved").exists()
    assert "asked to stop" in (tmp_path / "said").read_text()
