"""Jobs side by side that are asked to stop, or whose processes are killed: they save, all end, nothing hangs."""

import os
import pickle
import signal
import subprocess
import time
from contextlib import contextmanager, suppress

import pytest

from children import HANG_S, kill_all, wait_until
from lwd.errors import Interrupted, Preempted, UserError
from lwd.runtime.jobs import run_jobs
from lwd.runtime.preemption import Preemption
from lwd.runtime.progress import progress_bar
from lwd.runtime.team import _portable

SAVING_S = 1.0
FOREVER_S = 100 * HANG_S
"""What takes that long is ended, or the test fails."""


def ready(folder, name):
    """Tell the test, in one go."""
    (folder / name).write_text(str(os.getpid()))
    (folder / name).rename(folder / f"{name}.ready")


def train(folder, name, saving=SAVING_S):
    """Steps until the signal, then saves, as `Engine.fit` does, counting on."""
    with progress_bar(name, 1) as bar, Preemption() as preemption:
        ready(folder, name)
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
    ready(folder, name)
    time.sleep(FOREVER_S)


def finish(folder, name):
    """Done at once: what its process does then is the pool's affair."""
    ready(folder, name)


class SlowlyToldError(UserError):
    """Takes its time on its way through a pipe, as on a busy machine."""

    def __reduce__(self):
        time.sleep(0.5)  # longer than the parent takes to pass the signal on once more
        return UserError, self.args


def fail_to_save(folder, name):
    with Preemption() as preemption:
        ready(folder, name)
        while not preemption.requested(1):
            time.sleep(0.01)
        raise SlowlyToldError(f"{name}: could not be written (No space left on device)")


def fail(folder, name):
    """Fails once the job beside it trains."""
    ready(folder, name)
    wait_for(folder / "a.ready")
    raise UserError(f"{name}: channel 3 is constant")


def leave_a_child(folder, name):
    """As a loader's worker: the child holds every pipe of its parent, and outlives it."""
    if os.fork() == 0:
        time.sleep(FOREVER_S)
        os._exit(0)
    sleep(folder, name)


def do(job):
    function, folder, name = job
    return function(folder, name)


def wait_for(*paths):
    wait_until(lambda: all(path.exists() for path in paths))


def command(folder, functions, processes):
    """What `lwd sweep` does about it: the exit code, and the one line in a file."""
    jobs = [(function, folder, name) for function, name in zip(functions, "abcdef", strict=False)]
    try:
        run_jobs(do, jobs, "sweep", processes=processes, show=False)
    except Preempted as error:
        (folder / "said").write_text(str(error))
        return 130 if isinstance(error, Interrupted) else 75
    except UserError as error:
        (folder / "said").write_text(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


@contextmanager
def running(folder, functions, processes=2):
    """`command` in a forked process and a session of its own; the process's number."""
    if not (pid := os.fork()):
        try:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)  # the suite may be born to ignore it
            os._exit(command(folder, functions, processes))
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
    try:
        yield pid
    finally:
        kill_all(pid)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


def ended(pid, children=True):
    """Wait for the end, of all its children, too; returns the exit code."""
    done = []
    wait_until(lambda: done.append(os.waitpid(pid, os.WNOHANG)) or done[-1][0])
    if children:
        wait_until(lambda: not in_session(pid))
    return os.waitstatus_to_exitcode(done[-1][1])


def in_session(pid):
    return subprocess.run(["pgrep", "-a", "-s", str(pid)], check=False, capture_output=True, text=True).stdout


def workers(pid):
    """How many job processes it has."""
    return sum("spawn_main" in line for line in in_session(pid).splitlines())


def said(folder):
    return (folder / "said").read_text()


def test_one_that_saves_one_that_cannot_and_one_that_is_done(tmp_path):
    """The last of them waits for work, which it did with a lock that the next one needed."""
    with running(tmp_path, [train, sleep, finish], processes=3) as pid:
        wait_for(*(tmp_path / f"{name}.ready" for name in "abc"))
        time.sleep(0.3)  # until c waits
        os.kill(pid, signal.SIGTERM)
        assert ended(pid) == 75
    assert (tmp_path / "a.saved").exists() and "asked to stop" in said(tmp_path)


def test_asked_to_stop_before_any_job_began(tmp_path):
    with running(tmp_path, [train, train, train]) as pid:
        wait_until(lambda: workers(pid) == 2)
        os.kill(pid, signal.SIGUSR1)
        assert ended(pid) == 75
    assert not list(tmp_path.glob("*.ready")) and "asked to stop" in said(tmp_path)


def test_a_save_that_fails_is_told(tmp_path):
    """And the job after them is not begun. The signal goes to all processes at once, as a scheduler's may, and then
    reaches the job a second time, from its parent."""
    with running(tmp_path, [train, fail_to_save, finish]) as pid:
        wait_for(tmp_path / "a.ready", tmp_path / "b.ready")
        os.killpg(pid, signal.SIGTERM)
        assert ended(pid) == 2
    assert (tmp_path / "a.saved").exists() and not (tmp_path / "c.ready").exists()
    assert said(tmp_path) == "b: could not be written (No space left on device)"


def test_the_first_exception_ends_one_that_saves(tmp_path):
    with running(tmp_path, [train, fail]) as pid:
        assert ended(pid) == 2
    assert (tmp_path / "a.saved").exists() and said(tmp_path) == "b: channel 3 is constant"


def test_one_that_is_killed_ends_one_that_saves(tmp_path):
    with running(tmp_path, [train, leave_a_child]) as pid:
        wait_for(tmp_path / "a.ready", tmp_path / "b.ready")
        os.kill(int((tmp_path / "b.ready").read_text()), signal.SIGKILL)
        assert ended(pid, children=False) == 2  # the child lives for longer than anything here waits
    assert (tmp_path / "a.saved").exists()
    assert "sweep: the process of job 2 of 2 was killed by SIGKILL" in said(tmp_path)


def test_ctrl_c_lets_them_save(tmp_path):
    with running(tmp_path, [train, sleep]) as pid:
        wait_for(tmp_path / "a.ready", tmp_path / "b.ready")
        os.killpg(pid, signal.SIGINT)
        assert ended(pid) == 130
    assert (tmp_path / "a.saved").exists()


def test_a_signal_after_the_last_look_is_not_lost():
    with pytest.raises(Preempted, match="asked to stop"), Preemption() as preemption:
        assert not preemption.requested(1, last=True)
        os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(UserError), Preemption():
        os.kill(os.getpid(), signal.SIGTERM)
        raise UserError("goes before")


class TwoArgumentsError(Exception):
    """Cannot be read back from a pickle, which holds one."""

    def __init__(self, what, why):
        super().__init__(f"{what}: {why}")


def raised(error):
    try:
        raise error
    except Exception as caught:
        return _portable(caught)


def test_what_a_pipe_can_carry_of_an_exception():
    error = pickle.loads(pickle.dumps(raised(UserError("one line"))))
    assert type(error) is UserError and str(error) == "one line"
    assert any("in raised" in note for note in error.__notes__)
    error = pickle.loads(pickle.dumps(raised(TwoArgumentsError("a", "b"))))
    assert type(error) is RuntimeError and "TwoArgumentsError: a: b" in str(error) and "in raised" in str(error)


def never_saves(folder, name):
    """Hears the signal and goes on, as one that waits for a slow disk."""
    with Preemption():
        ready(folder, name)
        time.sleep(FOREVER_S)


def test_the_second_ctrl_c_waits_for_nobody(tmp_path):
    with running(tmp_path, [never_saves, sleep]) as pid:
        wait_for(tmp_path / "a.ready", tmp_path / "b.ready")
        os.killpg(pid, signal.SIGINT)
        wait_until(lambda: workers(pid) == 1)  # the first one was passed on, which ends b
        os.killpg(pid, signal.SIGINT)
        assert ended(pid) == 130
