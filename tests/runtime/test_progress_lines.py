"""Progress where there is no terminal: lines by the clock, which is the test's own."""

import io

import pytest
from rich.console import Console

from lwd.runtime import progress
from lwd.runtime.progress import LINE_EVERY, forwarding, progress_bar


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def log(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=file, force_terminal=False, width=40))
    return file


def test_a_line_every_half_minute_and_one_at_the_end(log):
    clock = Clock()
    with progress_bar("train [x]", 1000, done=200, clock=clock) as bar:
        for _ in range(8):
            clock.now += LINE_EVERY / 2
            bar.note("loss 0.5, 12.0 images/s")
            bar(100)
    # 100 things in 15 s: at 400 done after 30 s, 600 more take 90 s
    assert log.getvalue().splitlines() == [
        "train [x]: 400/1000, 0:01:30 left, loss 0.5, 12.0 images/s",
        "train [x]: 600/1000, 0:01:00 left, loss 0.5, 12.0 images/s",
        "train [x]: 800/1000, 0:00:30 left, loss 0.5, 12.0 images/s",
        "train [x]: 1000/1000, took 0:02:00, loss 0.5, 12.0 images/s",
    ]


def test_what_is_short_hidden_or_part_of_another_says_nothing(log):
    clock, counted = Clock(), []
    with progress_bar("short", 3, clock=clock) as bar:
        clock.now += LINE_EVERY - 1
        bar(3)
    with progress_bar("hidden", 3, show=False, clock=clock) as bar:
        clock.now += 10 * LINE_EVERY
        bar(3)
    with forwarding(counted.append), progress_bar("inside", 3, clock=clock) as bar:
        clock.now += 10 * LINE_EVERY
        bar(3)
    assert log.getvalue() == "" and counted == [0, 3]


def test_nothing_done_yet_has_no_time_left(log):
    clock = Clock()
    with progress_bar("slow", 3, clock=clock) as bar:
        clock.now += LINE_EVERY
        bar(0)
    assert log.getvalue().splitlines() == ["slow: 0/3", "slow: 0/3, took 0:00:30"]


def test_more_than_was_thought_still_says_how_far_it_is(log):
    clock = Clock()
    with progress_bar("jobs", 4, clock=clock) as bar:
        for _ in range(3):
            clock.now += LINE_EVERY
            bar(3)
    assert log.getvalue().splitlines() == ["jobs: 3/4, 0:00:10 left", "jobs: 6", "jobs: 9", "jobs: 9, took 0:01:30"]
