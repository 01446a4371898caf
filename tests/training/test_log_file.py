"""The log's file: bounded, however many steps; the same after a kill as without; whole on a full disk."""

import errno
import json
import math
import os
import random
import resource
import tracemalloc

import numpy as np
import pytest
import torch

import lwd.training.log_file as log_file
from lwd.stages.watch import History
from lwd.training.log_file import LogFile, Tail, evenly_spaced, newest_step, read_log, scan_log, stays
from lwd.training.logging import MetricLog

MILLIONS = 3_000_000


def line(step):
    return {"step": step, "loss": 1 / (step + 1), "rho": [step * 1.5, -1.0]}


def text(steps):
    return "".join(json.dumps(line(step)) + "\n" for step in steps)


def steps_of(path):
    return [one["step"] for one in read_log(path)]


def kept(newest, whole):
    """The rule in the words of the docs, by numpy."""
    steps = np.arange(newest + 1)
    age = newest // whole * whole - steps
    spacing = 10 ** np.ceil(np.log10(np.maximum(age / whole, 1)) - 1e-12).astype(int)
    return steps[(steps + 1) % spacing == 0].tolist()


@pytest.mark.parametrize(
    ("newest", "lines", "oldest"), [(9_999, 10_000, 0), (19_999, 20_000, 0), (20_000, 11_001, 9), (110_000, 19_101, 99)]
)
def test_how_many_lines_stay(newest, lines, oldest):
    """Worked out by hand: of 20 001 steps the last 10 001 and every 10th of 10 000; step 10 000 is on the edge."""
    steps = kept(newest, log_file.WHOLE)
    assert len(steps) == lines and steps[0] == oldest
    assert [step for step in range(newest + 1) if stays({"step": step}, newest)] == steps


def test_three_million_steps_stay_in_a_bounded_file():
    most = max(len(kept(newest, log_file.WHOLE)) for newest in (MILLIONS - 1, MILLIONS - 10_001, 2_009_999))
    assert most <= 40_000 and 40_000 * 280 < 12e6  # bytes, of the 840 MB that all lines would take
    steps, there = random.Random(0).choices(range(MILLIONS), k=3000), set(kept(MILLIONS - 1, log_file.WHOLE))
    assert all(stays({"step": step}, MILLIONS - 1) == (step in there) for step in steps)


@pytest.mark.parametrize(("block", "steps"), [(1, 500), (7, 1100), (64, 3000)])
def test_the_file_holds_what_the_rule_says_at_every_length(tmp_path, monkeypatch, block, steps):
    """Through the class, at a 1000th of the size: up to 3 000 steps with 10 whole lines."""
    monkeypatch.setattr(log_file, "WHOLE", 10)
    log = MetricLog(tmp_path / "trace.jsonl", lambda tensor: tensor, write=True)
    for step in range(steps):
        log.add(step, {"loss": torch.tensor(step / 4)})
        if (step + 1) % block == 0:
            log.flush()
            if step % 37 == 0 or step > steps - 70:
                assert steps_of(log.path) == kept(step, 10)
                assert log.path.read_text().count("\n") == len(kept(step, 10)) <= 50


def test_a_run_that_is_killed_again_and_again_leaves_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(log_file, "WHOLE", 20)
    draw = random.Random(1)
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    log = LogFile(whole, 0)
    for start in range(0, 1000, 10):
        log.append([line(step) for step in range(start, start + 10)])
    first = 0
    while first < 1000:
        log = LogFile(parts, first)
        until = min(1000, first + 10 * draw.randint(1, 30))
        for start in range(first, until, 10):
            log.append([line(step) for step in range(start, start + 10)])
        if until < 1000:
            with parts.open("a") as file:
                file.write(text([until])[: draw.randint(1, 30)])
        first = until if until == 1000 else draw.randrange(max(0, until - 60), until + 1, 10)
    assert parts.read_bytes() == whole.read_bytes()
    assert len(steps_of(whole)) < 100


def test_held_out_measurements_all_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(log_file, "WHOLE", 10)
    log = LogFile(tmp_path / "trace.jsonl", 0)
    for step in range(500):
        log.append([line(step) | ({"heldout_corrected": 0.5} if step % 123 == 0 else {})])
    assert set(range(0, 500, 123)) <= set(steps_of(log.path)) and len(steps_of(log.path)) < 60


def test_on_a_full_disk_a_block_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "trace.jsonl"
    log = LogFile(path, 0)
    log.append([line(0)])
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            log.append([line(step) for step in range(1, 9)])
        assert caught.value.filename == str(path)
        with pytest.raises(OSError, match="too large"):
            LogFile(tmp_path / "other.jsonl", 0).append([line(step) for step in range(100)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and (tmp_path / "other.jsonl").read_bytes() == b""
    log.append([line(1)])
    assert steps_of(path) == [0, 1]


def test_where_it_cannot_be_thinned_it_is_longer(tmp_path, monkeypatch):
    monkeypatch.setattr(log_file, "WHOLE", 10)
    path, real = tmp_path / "trace.jsonl", log_file.atomic_path
    log = LogFile(path, 0)

    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(log_file, "atomic_path", full)
    for step in range(45):
        log.append([line(step)])
    assert path.read_text() == text(range(45))
    monkeypatch.setattr(log_file, "atomic_path", real)
    for step in range(45, 52):
        log.append([line(step)])
    assert steps_of(path) == kept(51, 10)


def test_a_log_that_was_never_thinned_is_read_and_gone_on_with_as_if_it_had_been(tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text(text(range(30_000)))
    tracemalloc.start()
    count = sum(1 for _ in scan_log(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == len(kept(29_999, log_file.WHOLE)) == 21_000
    assert peak < 2e6  # bytes: lines and chunks, of 2 MB of text, 10 MB of lines
    assert len(Tail(path).lines()[1]) == count
    LogFile(path, 25_001)
    assert path.read_text() == text(kept(25_000, log_file.WHOLE))


def test_what_is_no_line_is_passed_over(tmp_path):
    path = tmp_path / "trace.jsonl"
    odd = [
        b"[1]",
        b'"step"',
        b'{"step": -1}',
        b'{"step": true}',
        b'{"step": 1.0}',
        b'{"loss": 1}',
        b"\xff",
        b"\0\0\0",
        b"",
    ]
    odd += [
        b'{"step": ' + b"9" * 5000 + b"x}",
        b"[" * 10_000,
        b'{"step": 3, "loss": "high"}',
        b'{"step": 3, "rho": [[1]]}',
    ]
    path.write_bytes(
        b"\n".join([b'{"step": 0}', *odd, b'{"step": 1, "a": NaN, "b": [null, Infinity], "c": null}', b'{"ste'])
    )
    first, second = read_log(path)
    assert first == {"step": 0} and second["step"] == 1 and second["b"] == [None, math.inf] and math.isnan(second["a"])
    LogFile(path, 1)
    assert path.read_bytes() == b'{"step": 0}\n'


@pytest.mark.parametrize("chunk", [1, 7, 64, 2**16])
def test_the_newest_step_is_read_from_the_end(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(log_file, "_CHUNK_BYTES", chunk)
    path = tmp_path / "trace.jsonl"
    path.write_text(text(range(20)) + text([20])[:9])
    with path.open("rb") as file:
        assert [newest_step(file), newest_step(file, 7), newest_step(file, 0)] == [19, 6, -1]
    path.write_text("")
    with path.open("rb") as file:
        assert newest_step(file) == -1


def test_what_is_drawn_lies_evenly():
    lines = [line(step) for step in kept(150_000, log_file.WHOLE)]
    even, spacing = evenly_spaced(lines)
    assert spacing == 100 and [one["step"] for one in even] == list(range(99, 150_000, 100))
    assert evenly_spaced(lines[-5:]) == (lines[-5:], 1)


def test_the_loss_so_far_is_a_mean_over_equal_stretches():
    history = History()
    for step in range(100_000):
        history.add(step, step // 50_000 if step % 2 else math.nan)
    means = history.means
    assert 60 <= len(means) <= 120 and set(means[: len(means) // 2 - 1]) == {0.0} and means[-1] == 1.0
