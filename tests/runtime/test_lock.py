"""Two processes do not work in one folder."""

import os
import signal
import subprocess
import sys

import pytest

from children import HANG_S, started
from lwd.errors import UserError
from lwd.runtime.lock import alone_in

HOLD = """
import os, sys, time
from pathlib import Path
from lwd.runtime.lock import alone_in
with alone_in(Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(6000)
        os._exit(0)
    print("held", flush=True)
    time.sleep(6000)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_second_is_refused_until_the_first_ends(tmp_path, end):
    """Also where a child of the first, such as a loader's worker, outlives it."""
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with started(command, stdout=subprocess.PIPE, stderr=None) as first:
        assert first.stdout.readline() == "held\n"
        refused = pytest.raises(UserError, match=rf"run: in use by process {first.pid} on .*; wait for its end")
        with refused as error, alone_in(folder):
            pytest.fail("entered")
        assert "\n" not in str(error.value)
        first.send_signal(end)
        first.wait(timeout=HANG_S)
        with alone_in(folder):
            assert (folder / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_again_and_again_in_one_process(tmp_path):
    for _ in range(2):
        with alone_in(tmp_path):
            pass


def link(path, other):
    path.symlink_to(other)


def dangling_link(path, other):
    path.symlink_to(other.with_name("nowhere"))


def second_name(path, other):
    os.link(other, path)


def pipe(path, other):
    os.mkfifo(path)


def folder_of_that_name(path, other):
    path.mkdir()


def notes(path, other):
    path.write_text("process of review: read chapter 3\n")


@pytest.mark.parametrize("make", [link, dangling_link, second_name, pipe, folder_of_that_name, notes])
def test_what_is_no_lock_of_ours_is_left_alone(tmp_path, make):
    other, folder = tmp_path / "thesis.tex", tmp_path / "run"
    other.write_text("years of work")
    folder.mkdir()
    make(folder / ".lock", other)
    before = (folder / ".lock").lstat()
    with pytest.raises(UserError, match=r"\.lock: .*no lock of ours; remove it") as error, alone_in(folder):
        pytest.fail("entered")
    assert "\n" not in str(error.value)
    assert other.read_text() == "years of work" and not (tmp_path / "nowhere").exists()
    assert ((folder / ".lock").lstat().st_size, (folder / ".lock").lstat().st_ino) == (before.st_size, before.st_ino)
