"""A stopped run, gone on with, is bit for bit the run that never stopped (one process, one thread count, CPU)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lwd.errors import UserError
from lwd.probe.task import ProbeTask
from lwd.stages import probe, train
from lwd.stages.experiment import Experiment
from lwd.training.logging import read_log
from traces import per_step


def changed(experiment: Experiment, section: str, folder: Path | None = None, **settings: object) -> Experiment:
    update: dict[str, object] = {section: getattr(experiment, section).model_copy(update=settings)}
    if folder is not None:
        update["output"] = folder
    return experiment.model_copy(update=update)


def assert_same_tensors(a: Path, b: Path) -> None:
    first, second = load_file(a), load_file(b)
    assert first.keys() == second.keys()
    for key in first:
        assert torch.equal(first[key], second[key]), key


def test_training_resumes_bit_for_bit(experiment: Experiment, tmp_path: Path) -> None:
    sync = experiment.train.schedule.model_copy(update={"kind": "synchronous"})
    whole = changed(experiment, "train", tmp_path / "whole", schedule=sync)
    halves = changed(experiment, "train", tmp_path / "halves", schedule=sync)
    end = train.run(whole)
    train.run(changed(halves, "train", steps=5))
    end_of_halves = train.run(halves)
    for name in ("model/model.safetensors", "ema/model.safetensors", "optimizer.safetensors"):
        assert_same_tensors(end / name, end_of_halves / name)
    log, log_of_halves = (read_log(path.parent / "trace.jsonl") for path in (end, end_of_halves))
    assert per_step(log) == per_step(log_of_halves) and "loss" in per_step(log)[0]
    assert [line["step"] for line in log] == list(range(8))


def test_a_different_seed_gives_a_different_run(experiment: Experiment, tmp_path: Path) -> None:
    """The comparison above can fail."""
    sync = experiment.train.schedule.model_copy(update={"kind": "synchronous"})
    a = train.run(changed(experiment, "train", tmp_path / "a", schedule=sync))
    other = changed(experiment, "train", tmp_path / "b", schedule=sync).model_copy(update={"seed": 1})
    b = train.run(other)
    with pytest.raises(AssertionError):
        assert_same_tensors(a / "model/model.safetensors", b / "model/model.safetensors")


def test_the_probe_resumes_bit_for_bit_through_burn_in(experiment: Experiment, tmp_path: Path) -> None:
    """The interruption falls after burn-in, so the buffer of rho must survive it."""
    whole = changed(experiment, "probe", tmp_path / "whole")
    schedule = probe.run(whole)
    halves = changed(experiment, "compute", tmp_path / "halves", checkpoint_every=9)
    stop_at = 9

    class StopError(Exception):
        pass

    original = ProbeTask.after_step

    def stopping(self: ProbeTask, step: int) -> object:
        if step == stop_at + 1:
            raise StopError
        return original(self, step)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopError):
        patch.setattr(ProbeTask, "after_step", stopping)
        probe.run(halves)
    assert not (tmp_path / "halves/probe/schedule.json").exists()
    again = probe.run(halves)
    assert again.to_dict()["groups"] == schedule.to_dict()["groups"]
    logs = [read_log(tmp_path / name / "probe" / "trace.jsonl") for name in ("halves", "whole")]
    assert per_step(logs[0]) == per_step(logs[1]) and "rho_tex" in per_step(logs[0])[0]


def test_a_checkpoint_of_another_config_is_refused(experiment: Experiment) -> None:
    sync = experiment.train.schedule.model_copy(update={"kind": "synchronous"})
    first = changed(experiment, "train", schedule=sync)
    train.run(first)
    with pytest.raises(UserError, match=r"checkpoint of another config: train\.lr was 0\.001, now 0\.002"):
        train.run(changed(first, "train", lr=0.002, steps=16))
    offset = sync.model_copy(update={"kind": "offset"})
    with pytest.raises(UserError, match="schedule was"):
        train.run(changed(first, "train", schedule=offset, steps=16))
    afresh = first.compute.model_copy(update={"resume": False})
    train.run(changed(first.model_copy(update={"compute": afresh}), "train", lr=0.002))
