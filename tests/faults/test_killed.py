"""Runs that are killed, stopped, starved of disk or fed nonsense: nothing is lost that was there."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from children import HANG_S, filled, kill_all, said_at_the_end, started, wait_until
from lwd.errors import Preempted, UserError
from lwd.runtime.checkpoint import checkpoint_path, find_checkpoints
from lwd.stages import probe, semvae, train
from lwd.stages.semvae import SemVAESettings
from lwd.training.ema import EMA
from lwd.training.logging import read_log
from traces import per_step

ROOT = Path(__file__).parents[2]
KILLS = 12


def changed(experiment, folder, steps, **compute):
    """The tiny experiment with other steps, in its own folder, under the synchronous schedule."""
    schedule = experiment.train.schedule.model_copy(update={"kind": "synchronous"})
    return experiment.model_copy(
        update={
            "output": folder,
            "train": experiment.train.model_copy(update={"steps": steps, "schedule": schedule}),
            "probe": experiment.probe.model_copy(update={"steps": steps, "burn_in": steps // 2}),
            "semvae": SemVAESettings(channels=2, depth=1, heads=2, steps=steps, batch=8, warmup=3, eval_every=20),
            "compute": experiment.compute.model_copy(update=compute),
        }
    )


def in_a_child(function, *arguments):
    """Run in a forked process, which needs no seconds of importing; returns its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            function(*arguments)
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
    return pid


def run_with_kills(function, config, seed):
    """Start again and again, kill -9 after a random time, until a run ends by itself; returns the number of kills."""
    chance = random.Random(seed)
    for kills in itertools.count():
        pid = in_a_child(function, config)
        try:
            if kills < KILLS:
                time.sleep(chance.uniform(0.02, 0.35))
                os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        except KeyboardInterrupt:
            kill_all(pid)
            raise
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            return kills
    raise AssertionError


def assert_same_files(a, b):
    files = sorted(p.relative_to(a) for p in a.rglob("*.safetensors"))
    assert files and files == sorted(p.relative_to(b) for p in b.rglob("*.safetensors"))
    for name in files:
        first, second = load_file(a / name), load_file(b / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), name


@pytest.mark.parametrize("stage", [train.run, probe.run, semvae.run], ids=["train", "probe", "semvae"])
def test_kill_9_at_random_instants(experiment, tmp_path, stage):
    """Checkpoints every third step, so that kills fall into their writing too; the last kills come after the end."""
    steps = 90
    settings = {"checkpoint_every": 3, "log_every": 2}
    posthoc = experiment.train.model_copy(update={"posthoc_ema": (0.1,), "posthoc_every": 10})
    experiment = experiment.model_copy(update={"train": posthoc})
    stage(changed(experiment, tmp_path / "whole", steps, **settings))
    killed = changed(experiment, tmp_path / "killed", steps, **settings)
    kills = run_with_kills(stage, killed, seed=0)
    folder = Path({train.run: "train/learned", probe.run: "probe", semvae.run: "semvae"}[stage])
    whole, mended = tmp_path / "whole" / folder, tmp_path / "killed" / folder
    assert kills >= KILLS // 2, f"only {kills} kills hit: the run was too short to be disturbed"
    assert_same_files(checkpoint_path(whole, steps), checkpoint_path(mended, steps))
    assert per_step(read_log(whole / "trace.jsonl")) == per_step(read_log(mended / "trace.jsonl"))
    assert not list(mended.glob(".step-*")), "what killed writers left is removed"
    if stage is semvae.run:
        assert (whole / "heldout.json").read_text() == (mended / "heldout.json").read_text()
    if stage is train.run:
        assert len(find_checkpoints(whole / "posthoc")) == steps // 10
        assert_same_files(whole / "posthoc", mended / "posthoc")
    if stage is probe.run:
        curves = [json.loads((f / "schedule.json").read_text())["groups"] for f in (whole, mended)]
        assert curves[0] == curves[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=["SIGTERM", "SIGUSR1"])
def test_asked_to_stop_it_saves_and_says_so(experiment, overrides, tmp_path, number):
    arguments = ["train.steps=4000", "train.schedule={kind: synchronous}", "compute.checkpoint_every=0"]
    command = [
        sys.executable,
        "-m",
        "lwd",
        "train",
        "-c",
        str(ROOT / "configs" / "digits.yaml"),
        *overrides,
        *arguments,
    ]
    folder = tmp_path / "run" / "train" / "learned"
    with started(command) as process:
        wait_until(lambda: filled(folder / "trace.jsonl"), process)
        process.send_signal(number)
        said = said_at_the_end(process)
    assert process.returncode == 75
    (step,) = find_checkpoints(folder)
    assert f"saved after step {step}; run it again to go on" in said and "Traceback" not in said
    assert [line["step"] for line in read_log(folder / "trace.jsonl")] == list(range(step))
    # Gone on with, it is the run that was never stopped.
    mended = changed(experiment, tmp_path / "run", step + 3)
    whole = changed(experiment, tmp_path / "whole", step + 3)
    assert_same_files(train.run(mended), train.run(whole))


def test_several_processes_save_before_any_ends(overrides, tmp_path):
    """The main process writes slowly; had the other ended first, torchrun would have ended the writing."""
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import sys, time\n"
        "import lwd.training.writer as w\n"
        "save = w.save_checkpoint\n"
        "def slowly(*a):\n    time.sleep(4)\n    return save(*a)\n"
        "w.save_checkpoint = slowly\n"
        "from lwd.cli.main import main\nmain()\n"
    )
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(slow), "train"]
    config = ["-c", str(ROOT / "configs" / "digits.yaml"), *overrides]
    more = [
        "train.steps=100000",
        "train.schedule={kind: synchronous}",
        "compute.log_every=2",
        "compute.checkpoint_every=0",
    ]
    folder = tmp_path / "run" / "train" / "learned"
    with (tmp_path / "said").open("w") as said, started([*start, *config, *more], stderr=said) as process:
        wait_until(lambda: filled(folder / "trace.jsonl"), process)
        ranks = subprocess.run(["pgrep", "-P", str(process.pid)], check=True, capture_output=True, text=True).stdout
        for rank in ranks.split():
            os.kill(int(rank), signal.SIGUSR1)
        assert process.wait(timeout=HANG_S) != 0
    (step,) = find_checkpoints(folder)
    assert f"saved after step {step}" in (tmp_path / "said").read_text()


def test_a_signal_to_the_whole_group_with_loader_workers(experiment, overrides, tmp_path):
    arguments = ["train.steps=4000", "train.schedule={kind: synchronous}", "compute.workers=2", "compute.log_every=5"]
    config = str(ROOT / "configs" / "digits.yaml")
    command = [sys.executable, "-m", "lwd", "train", "-c", config, *overrides, *arguments]
    trace = tmp_path / "run" / "train" / "learned" / "trace.jsonl"
    with started(command) as process:
        wait_until(lambda: filled(trace), process)
        os.killpg(process.pid, signal.SIGTERM)
        said = said_at_the_end(process)
    assert process.returncode == 75 and "Traceback" not in said
    assert len(find_checkpoints(trace.parent)) == 1


def test_a_sweep_side_by_side_saves_every_job(overrides, tmp_path):
    settings = ["sweep.processes=2", "probe={steps: 4000, burn_in: 6, batch: 16, lr: 1e-3}", "compute.log_every=5"]
    config = str(ROOT / "configs" / "digits.yaml")
    command = [sys.executable, "-m", "lwd", "sweep", "-c", config, *overrides, *settings]
    folder = tmp_path / "run" / "sweep"
    with started(command) as process:
        wait_until(lambda: sum(filled(trace) for trace in folder.glob("*/trace.jsonl")) >= 2, process)
        process.send_signal(signal.SIGTERM)
        said = said_at_the_end(process)
    assert process.returncode == 75 and "asked to stop" in said and "Traceback" not in said, said
    assert len(list(folder.glob("*/step-*"))) == 2


def test_asked_to_stop_in_the_last_step(experiment, tmp_path, monkeypatch):
    """What follows the stage must not begin; the finished stage is found again."""
    config = changed(experiment, tmp_path, 6)
    update = EMA.update

    def signal_at_the_end(self):
        update(self)
        signal_at_the_end.calls += 1
        if signal_at_the_end.calls == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    signal_at_the_end.calls = 0
    monkeypatch.setattr(EMA, "update", signal_at_the_end)
    with pytest.raises(Preempted, match="saved after step 6"):
        train.run(config)
    assert train.run(config) == checkpoint_path(tmp_path / "train" / "learned", 6)


def test_a_dead_rank_ends_all_and_the_cause_can_be_read(overrides, tmp_path):
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    config = ["-c", str(ROOT / "configs" / "digits.yaml"), *overrides]
    more = ["train.steps=100000", "train.schedule={kind: synchronous}", "compute.log_every=2"]
    trace = tmp_path / "run" / "train" / "learned" / "trace.jsonl"
    command = [*start, "-m", "lwd", "train", *config, *more]
    with (tmp_path / "said").open("w") as said, started(command, stderr=said) as process:
        wait_until(lambda: filled(trace), process)
        ranks = subprocess.run(["pgrep", "-P", str(process.pid)], check=True, capture_output=True, text=True).stdout
        os.kill(int(ranks.split()[1]), signal.SIGKILL)
        assert process.wait(timeout=HANG_S) != 0
        gone = subprocess.run(["pgrep", "-s", str(process.pid)], check=False, capture_output=True, text=True).stdout
        assert not gone.split()
    assert "rank      : 1" in (text := (tmp_path / "said").read_text()) and "Signal 9 (SIGKILL)" in text


def test_a_full_disk_leaves_the_checkpoints_before_it_whole(experiment, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(small)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        config = changed(experiment, small, 40, checkpoint_every=2, keep_checkpoints=0)
        with pytest.raises(UserError, match=r"could not be written .*No space left.*before it are whole") as error:
            train.run(config)
        assert "\n" not in str(error.value)
        found = find_checkpoints(small / "train" / "learned")
        assert found and not list((small / "train" / "learned").glob(".step-*"))
        for path in found.values():
            sums = json.loads((path / "state.json").read_text())["sha256"]
            assert set(sums) == {str(p.relative_to(path)) for p in path.rglob("*.*") if p.name != "state.json"}
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_damaged_checkpoint_is_refused(experiment, tmp_path):
    config = changed(experiment, tmp_path, 6, checkpoint_every=2)
    train.run(config)
    newest = tmp_path / "train" / "learned" / "step-00000006" / "ema" / "model.safetensors"
    content = bytearray(newest.read_bytes())
    content[-3] ^= 1
    newest.write_bytes(content)
    longer = changed(experiment, tmp_path, 8, checkpoint_every=2)
    with pytest.raises(UserError, match=r"ema/model.safetensors: damaged or missing; remove .*step-00000006 to go on"):
        train.run(longer)
    for file in sorted(newest.parents[1].rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    newest.parents[1].rmdir()
    whole = changed(experiment, tmp_path / "whole", 8, checkpoint_every=2)
    assert_same_files(train.run(longer), train.run(whole))


def test_a_run_that_explodes_stops_with_good_weights_and_a_list_of_images(experiment, tmp_path):
    config = changed(experiment, tmp_path, 60, checkpoint_every=0, log_every=10)
    exploding = config.model_copy(update={"train": config.train.model_copy(update={"lr": 1e30})})
    with pytest.raises(UserError, match=r"steps in a row were skipped.*skipped.json.*lower the learning rate"):
        train.run(exploding)
    listed = json.loads((tmp_path / "train" / "learned" / "skipped.json").read_text())
    assert len(listed) >= 5 and all(len(entry["images"]) == 16 for entry in listed)
    shown = {line["step"]: line["skipped"] for line in read_log(tmp_path / "train" / "learned" / "trace.jsonl")}
    assert [entry["step"] for entry in listed] == [step for step, skipped in shown.items() if skipped]


def test_micro_batches_add_up(experiment, tmp_path):
    """Float32 sums in another order: 1e-5 of the losses over 30 steps, though Adam amplifies differences."""
    whole = train.run(changed(experiment, tmp_path / "whole", 30))
    parts = train.run(changed(experiment, tmp_path / "parts", 30, micro_batch=5))
    a, b = (read_log(path.parent / "trace.jsonl") for path in (whole, parts))
    for ours, theirs in zip(a, b, strict=True):
        for key in ("loss", "flow", "flow_tex", "cosine", "repa"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-5), (ours["step"], key)
    assert a[-1]["loss"] != b[-1]["loss"], "another order of summation must show somewhere"
