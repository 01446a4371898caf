"""`lwd runs`: folders as the stages leave them, with real checkpoints and locks, and everything that is no run."""

import json
import os
import sys

import pytest
from typer.testing import CliRunner

from children import started, wait_until
from lwd.cli.main import app
from lwd.errors import UserError
from lwd.files import BOUND_BYTES, read_bounded, read_end, write_json
from lwd.runtime.checkpoint import Files, save_checkpoint
from lwd.runtime.lock import LOCK, is_held
from lwd.schedules import Schedule
from lwd.stages.watch.overview import as_table, as_text, overview
from lwd.stages.watch.rows import entries

HOLD = """
import sys, time
from pathlib import Path
from lwd.runtime.lock import alone_in
with alone_in(Path(sys.argv[1])):
    Path(sys.argv[1], "held").touch()
    time.sleep(600)
"""


def log(folder, steps, written=1000.0, **more):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"step": step, "loss": 2.0, "images_per_s": 32.5, **more} for step in range(steps)]
    (folder / "trace.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    os.utime(folder / "trace.jsonl", (written, written))
    return folder


def train(root, name="learned", steps=6, saved=None, written=1000.0):
    folder = log(root / "train" / name, steps, written, flow=1.0)
    (folder / "config.yaml").write_text("train: {steps: 10, batch: 4, schedule: {kind: offset, delta: 0.3}}\n")
    if saved is not None:
        save_checkpoint(folder, saved, Files({"note.txt": "x"}), {"schedule": "abcdef012345"})
    return folder


def only(root):
    (row,) = overview(root).rows
    return row


@pytest.mark.parametrize(
    ("steps", "saved", "state"), [(6, 6, "stopped"), (6, 4, "killed"), (6, None, "killed"), (10, 10, "ended")]
)
def test_how_a_run_that_nobody_works_on_ended(tmp_path, steps, saved, state):
    train(tmp_path, steps=steps, saved=saved)
    row = only(tmp_path)
    assert (row.command, row.state, row.done, row.total) == ("train", state, steps, 10)
    assert (row.loss, row.images_per_s, row.schedule, row.written) == (2.0, 32.5, "offset:0.3", 1000.0)
    assert row.fingerprint == (None if saved is None else "abcdef012345")


def test_a_run_that_is_held_is_running_and_looking_takes_nothing(tmp_path):
    folder = train(tmp_path, steps=6, saved=4)
    assert is_held(folder) is False
    with started([sys.executable, "-c", HOLD, folder]) as process:
        wait_until((folder / "held").exists, process)
        assert only(tmp_path).state == "running" and is_held(folder)
    assert only(tmp_path).state == "killed"  # the lock went with the process
    (folder / LOCK).unlink()
    (folder / LOCK).symlink_to(folder / "config.yaml")
    assert only(tmp_path).state == "unknown"


def test_probes_sweeps_samples_and_maps(tmp_path):
    probe = log(tmp_path / "sweep" / "lambda-0.04", 3, written=50, kinetic=1.0)
    (probe / "config.yaml").write_text("probe: {steps: 8, batch: 4, kinetic_weight: 0.04}\n")
    schedule = Schedule.synchronous(("a", "b"))
    schedule.save(probe / "schedule.json")
    schedule.save(tmp_path / "schedule.json")
    write_json(tmp_path / "sweep" / "table.json", {"chosen": 0.04})
    samples, half = tmp_path / "samples" / "whole", tmp_path / "samples" / "half"
    for folder in (samples, half):
        recipe = {"sample": {"num": 25, "block": 10, "schedule": {"kind": "power"}}, "schedule": "0123456789ab"}
        write_json(folder / "sampling.json", recipe)
    write_json(samples / "samples.json", {"format": "lwd.samples/1"})
    (half / "parts").mkdir()
    for name in ("000000.safetensors", "000002.safetensors", ".000001.safetensors.7.tmp", "notes"):
        (half / "parts" / name).touch()
    write_json(tmp_path / "map" / "mapping.json", {})
    (tmp_path / "map" / "parts").mkdir()
    (tmp_path / "map" / "parts" / "heldout-000000-32.safetensors").touch()
    found = {str(row.folder.relative_to(tmp_path)): row for row in overview(tmp_path).rows}
    assert {name: (row.command, row.state, row.done, row.total) for name, row in found.items()} == {
        "sweep": ("sweep", "ended", 1, None),
        "sweep/lambda-0.04": ("probe", "ended", 3, 8),
        "samples/whole": ("sample", "ended", 25, 25),
        "samples/half": ("sample", "stopped", 15, 25),  # blocks 0 and 2 of 10, 10 and 5
        "map": ("map", "stopped", 32, None),
    }
    for name in ("sweep", "sweep/lambda-0.04"):
        assert (found[name].schedule, found[name].fingerprint) == ("lambda 0.04", schedule.hash())
    assert (found["samples/half"].schedule, found["samples/half"].fingerprint) == ("power:2", "0123456789ab")


def test_newest_first_and_the_same_for_people_and_programs(tmp_path):
    for name, written in (("old", 1000.0), ("new", 4600.0)):
        train(tmp_path, name, saved=6, written=written)
    found = overview(tmp_path)
    head, new, old = as_text(found, now=4660.0).splitlines()
    assert head.split()[:3] == ["run", "command", "state"]
    assert new.split() == [
        "train/new",
        "train",
        "stopped",
        "6",
        "of",
        "10",
        "steps",
        "2",
        "32.5",
        "offset:0.3",
        "abcdef012345",
        "1",
        "min",
        "ago",
    ]
    assert old.startswith("train/old") and old.endswith("1 h 1 min ago")
    assert as_table(found, now=4660.0).row_count == 2
    shown = CliRunner().invoke(app, ["runs", str(tmp_path)])  # no terminal
    assert shown.exit_code == 0 and [line.split()[0] for line in shown.stdout.splitlines()[1:]] == [
        "train/new",
        "train/old",
    ]
    data = json.loads(CliRunner().invoke(app, ["runs", str(tmp_path), "--json"]).stdout)
    assert [(row["folder"], row["done"], row["state"]) for row in data] == [
        (str(tmp_path / "train" / name), 6, "stopped") for name in ("new", "old")
    ]


def test_what_is_no_run_is_passed_over_and_no_link_is_followed(tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    train(outside)
    root = tmp_path / "root"
    train(root, saved=6)
    (root / "linked").symlink_to(outside)
    (root / "foreign").mkdir()
    (root / "foreign" / "trace.jsonl").write_text('{"ts": 1}\n')  # somebody else's
    (root / "foreign" / "table.json").write_text("{}")
    os.mkfifo(root / "foreign" / "sampling.json")
    (root / "logged").mkdir()
    (root / "logged" / "trace.jsonl").symlink_to(outside / "train" / "learned" / "trace.jsonl")
    (root / "empty").mkdir()
    assert [row.folder for row in overview(root).rows] == [root / "train" / "learned"]
    assert "no runs here" in as_text(overview(root / "empty"), 0.0)
    monkeypatch.setattr("lwd.stages.watch.overview.MOST", 3)
    assert not overview(root).whole
    with pytest.raises(UserError, match="no such folder"):
        overview(root / "missing")


def test_an_unreadable_run_is_one_line_and_hides_no_other(tmp_path):
    train(tmp_path, "good", saved=6)
    torn = train(tmp_path, "torn\n")
    (torn / "config.yaml").write_bytes(b"train: [\xff")
    (train(tmp_path, "endless") / "config.yaml").write_text("train: {steps: .inf}")
    linked = train(tmp_path, "linked")
    (linked / "config.yaml").unlink()
    (linked / "config.yaml").symlink_to(torn / "config.yaml")
    states = {row.folder.name: row.state for row in overview(tmp_path).rows}
    unreadable = ("torn\n", "linked", "endless")
    assert states == {"good": "stopped", **dict.fromkeys(unreadable, "unreadable")}
    lines = as_text(overview(tmp_path), 0.0).splitlines()
    assert len(lines) == 1 + 4 + 3 and sum("not the config of a run" in line for line in lines) == 3


def test_reads_are_bounded(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"a" * BOUND_BYTES)
    assert len(read_bounded(file)) == BOUND_BYTES
    file.write_bytes(b"a" * BOUND_BYTES + b"b")
    with pytest.raises(UserError, match="longer than"):
        read_bounded(file)
    assert read_end(file) == b"a" * (BOUND_BYTES - 1) + b"b"
    folder = train(tmp_path, saved=6)
    with (folder / "trace.jsonl").open("r+b") as log_file:  # a log whose beginning is a hole of 2 GB
        line = log_file.read().splitlines()[-1] + b"\n"
        log_file.seek(2**31)
        log_file.write(b"\n" + line)
    assert only(tmp_path).done == 6


def test_a_folder_that_cannot_be_listed_is_passed_over(tmp_path):
    assert entries(tmp_path / "gone") == (set(), set(), 0)
