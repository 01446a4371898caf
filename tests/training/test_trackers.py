"""Trackers get what the log gets: TensorBoard's files read back; W&B through a stand-in for its package."""

import math
import sys
from io import BytesIO
from types import SimpleNamespace

import accelerate.tracking
import numpy as np
import pytest
from accelerate.utils import LoggerType
from PIL import Image

from lwd.config import load
from lwd.errors import UserError
from lwd.runtime.compute import ComputeConfig
from lwd.runtime.processes import Processes
from lwd.stages import probe, train
from lwd.training.trackers import Trackers

LINES = [
    {"step": 0, "loss": 1.5, "rho": [0.25, -1.0]},
    {"step": 1, "loss": math.nan, "rho": [0.5, 2.0], "bins": [None, 3.0], "bins_count": [0, 4]},
]
RECIPE = {"seed": 3, "train": {"lr": 0.5, "schedule": None}, "groups": [{"name": "tex"}]}


@pytest.fixture(autouse=True)
def accelerate_state():
    """Accelerate's trackers ask it which process is the main one."""
    Processes(ComputeConfig(device="cpu", progress=False))


def scalars(folder):
    """(step, value) of each tag in the event files."""
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="not installed")
    events = reading.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def images(folder):
    """step -> pixels of the only image tag in the event files."""
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="not installed")
    events = reading.EventAccumulator(str(folder / "tensorboard"), size_guidance={reading.IMAGES: 0})
    events.Reload()
    tags = events.Tags()["images"]
    assert tags == ["preview"]
    return {e.step: np.asarray(Image.open(BytesIO(e.encoded_image_string))) for e in events.Images("preview")}


def paint(folder, step, mode="RGB", size=(7, 5)):
    """A picture of noise, as the one drawn after ``step`` steps; its RGB pixels."""
    shape = (size[1], size[0], len(mode))[: 2 if mode == "L" else 3]
    noise = np.random.default_rng(step).integers(0, 256, shape, dtype=np.uint8)
    if mode == "RGBA":
        noise[..., 3] = 255
    (folder / "previews").mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(folder / "previews" / f"step-{step:08d}.png")
    return np.broadcast_to(noise[..., None], (*noise.shape, 3)) if mode == "L" else noise[..., :3]


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


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_tensorboard_holds_the_pictures_at_the_steps_they_end(tmp_path, mode):
    painted = {step: paint(tmp_path, step, mode) for step in (1, 4, 9)}
    track(tmp_path, [{"step": step, "loss": 1.0} for step in range(6)])
    shown = images(tmp_path)
    assert list(shown) == [0, 3]  # the first step has number 0, and step 8 is in a block to come
    for step, pixels in shown.items():
        np.testing.assert_array_equal(pixels, painted[step + 1])


def test_a_resumed_run_keeps_the_picture_of_its_first_checkpoint(tmp_path):
    first, second = paint(tmp_path, 3), paint(tmp_path, 5)
    track(tmp_path, [{"step": step, "loss": 1.0} for step in range(5)])
    again = paint(tmp_path, 5, size=(8, 8))
    track(tmp_path, [{"step": step, "loss": 2.0} for step in range(3, 5)], first=3)
    shown = images(tmp_path)
    np.testing.assert_array_equal(shown[2], first)
    np.testing.assert_array_equal(shown[4], again)
    assert again.shape != second.shape


@pytest.mark.parametrize("stage", ["train", "probe"])
def test_a_runs_pictures_are_those_on_disk(experiment, tmp_path, stage):
    compute = experiment.compute.model_copy(update={"trackers": ("tensorboard",), "log_every": 5})
    schedule = experiment.train.schedule.model_copy(update={"kind": "offset"})
    training = experiment.train.model_copy(update={"schedule": schedule, "preview_every": 3})
    probing = experiment.probe.model_copy(update={"preview_every": 5})
    parts = {"output": tmp_path, "compute": compute, "train": training, "probe": probing}
    config = experiment.model_copy(update=parts)
    {"train": train, "probe": probe}[stage].run(config)
    folder = tmp_path / {"train": "train/learned", "probe": "probe"}[stage]
    shown = images(folder)
    assert list(shown) == {"train": [2, 5, 7], "probe": [4, 9, 11]}[stage]
    for step, pixels in shown.items():
        with Image.open(folder / "previews" / f"step-{step + 1:08d}.png") as file:
            np.testing.assert_array_equal(pixels, np.asarray(file.convert("RGB")))
    assert len({pixels.tobytes() for pixels in shown.values()}) == 3


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
    stand_in = SimpleNamespace(
        init=lambda **arguments: calls.append(arguments) or run, config=config, Image=lambda pixels: pixels.tolist()
    )
    pixels = paint(tmp_path / "xl", 1)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", [LoggerType.WANDB])
    trackers = Trackers(["wandb", "wandb"], tmp_path / "xl", RECIPE, 0, main=True)
    trackers.log(LINES[:1])
    trackers.close()
    assert calls == [
        {"project": "lwd", "name": "xl", "dir": str(tmp_path / "xl")},
        {"seed": 3, "train/lr": 0.5, "train/schedule": "None", "groups": "[{'name': 'tex'}]"},
        (0, {"preview": [pixels.tolist()]}),
        (0, {"loss": 1.5, "rho/0": 0.25, "rho/1": -1.0}),
        "finish",
    ]


def trackio(monkeypatch, calls, **more):
    """A stand-in for its package, with what its documentation names."""
    run = SimpleNamespace(log=lambda values, step: calls.append((step, values)), finish=lambda: None)
    config = SimpleNamespace(update=lambda values, **_: None)
    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=lambda **_: run, config=config, **more))
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", [LoggerType.TRACKIO])


def test_trackio_gets_pictures_in_its_own_class(tmp_path, monkeypatch):
    calls = []
    trackio(monkeypatch, calls, Image=lambda pixels: ("image", pixels.dtype, pixels.tolist()))
    pixels = paint(tmp_path, 2)
    Trackers(["trackio"], tmp_path, RECIPE, 0, main=True).log([{"step": 0, "loss": 1.0}, {"step": 1, "loss": 2.0}])
    assert calls == [
        (0, {"loss": 1.0}),
        (1, {"preview": ("image", np.uint8, pixels.tolist())}),
        (1, {"loss": 2.0}),
    ]


def test_a_tracker_that_takes_no_picture_gets_the_numbers(tmp_path, monkeypatch, capsys):
    calls = []
    trackio(monkeypatch, calls)  # its first versions had no Image
    paint(tmp_path, 1)
    paint(tmp_path, 2)
    Trackers(["trackio"], tmp_path, RECIPE, 0, main=True).log([{"step": 0, "loss": 1.0}, {"step": 1, "loss": 2.0}])
    assert calls == [(0, {"loss": 1.0}), (1, {"loss": 2.0})]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "step-00000001.png: not shown in trackio (" in said and "Image" in said


def test_an_unknown_tracker_is_refused(tmp_path):
    (tmp_path / "c.yaml").write_text("trackers: [tensorbored]\n")
    with pytest.raises(UserError, match=r"trackers\.0: input should be 'tensorboard', 'wandb' or 'trackio'"):
        load(ComputeConfig, tmp_path / "c.yaml")
