"""Trackers get what the log gets: TensorBoard's files read back; W&B through a stand-in for its package."""

import math
import sys
from types import SimpleNamespace

import accelerate.tracking
import pytest
from accelerate.utils import LoggerType

from lwd.config import load
from lwd.errors import UserError
from lwd.runtime.engine import ComputeConfig, Engine
from lwd.runtime.trackers import Trackers

LINES = [
    {"step": 0, "loss": 1.5, "rho": [0.25, -1.0]},
    {"step": 1, "loss": math.nan, "rho": [0.5, 2.0], "bins": [None, 3.0], "bins_count": [0, 4]},
]
RECIPE = {"seed": 3, "train": {"lr": 0.5, "schedule": None}, "groups": [{"name": "tex"}]}


@pytest.fixture(autouse=True)
def accelerate_state():
    """Accelerate's trackers ask it which process is the main one."""
    Engine(ComputeConfig(device="cpu", progress=False))


def scalars(folder):
    """(step, value) of each tag in the event files."""
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="not installed")
    events = reading.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def track(folder, lines, first=0, main=True):
    pytest.importorskip("tensorboard", reason="not installed")
    trackers = Trackers(["tensorboard"], folder, RECIPE, first, main)
    trackers.log(lines)
    trackers.close()


def test_tensorboard_holds_every_finite_number(tmp_path):
    track(tmp_path, LINES)
    assert scalars(tmp_path) == {
        "loss": [(0, 1.5)],
        "rho/0": [(0, 0.25), (1, 0.5)],
        "rho/1": [(0, -1.0), (1, 2.0)],
        "bins/1": [(1, 3.0)],
        "bins_count/0": [(1, 0)],
        "bins_count/1": [(1, 4)],
    }


def test_a_resumed_run_replaces_the_steps_done_again(tmp_path):
    track(tmp_path, [{"step": step, "loss": 1.0} for step in range(6)])
    track(tmp_path, [{"step": step, "loss": 2.0} for step in range(3, 5)], first=3)
    assert scalars(tmp_path)["loss"] == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]


def test_other_processes_track_nothing(tmp_path):
    track(tmp_path, LINES, main=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("main", [True, False])
def test_a_missing_package_is_one_line(tmp_path, monkeypatch, main):
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", [])
    with pytest.raises(UserError) as caught:
        Trackers(["trackio"], tmp_path, RECIPE, 0, main)
    assert str(caught.value) == "compute.trackers: trackio is not installed; `pip install trackio`, or leave it out"


def test_wandb_gets_a_run_named_after_the_folder_its_config_and_every_step(tmp_path, monkeypatch):
    calls = []
    run = SimpleNamespace(
        log=lambda values, step: calls.append((step, values)),
        finish=lambda: calls.append("finish"),
    )
    config = SimpleNamespace(update=lambda values, **_: calls.append(values))
    stand_in = SimpleNamespace(init=lambda **arguments: calls.append(arguments) or run, config=config)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", [LoggerType.WANDB])
    trackers = Trackers(["wandb", "wandb"], tmp_path / "xl", RECIPE, 0, main=True)
    trackers.log(LINES[:1])
    trackers.close()
    assert calls == [
        {"project": "lwd", "name": "xl", "dir": str(tmp_path / "xl")},
        {"seed": 3, "train/lr": 0.5, "train/schedule": "None", "groups": "[{'name': 'tex'}]"},
        (0, {"loss": 1.5, "rho/0": 0.25, "rho/1": -1.0}),
        "finish",
    ]


def test_an_unknown_tracker_is_refused(tmp_path):
    (tmp_path / "c.yaml").write_text("trackers: [tensorbored]\n")
    with pytest.raises(UserError, match=r"trackers\.0: input should be 'tensorboard', 'wandb' or 'trackio'"):
        load(ComputeConfig, tmp_path / "c.yaml")
