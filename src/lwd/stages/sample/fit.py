"""The networks that `lwd sample` samples from: what lies in a checkpoint's folder, and whether it fits."""

from __future__ import annotations

from pathlib import Path

from lwd.errors import UserError
from lwd.files import checksum
from lwd.models import WEIGHTS, LightningDiT, load_model
from lwd.runtime.checkpoint import STATE, find_checkpoints, read_state
from lwd.schedules import Schedule
from lwd.stages.sample.settings import SampleConfig


def newest_checkpoint(folder: Path) -> Path:
    """The newest checkpoint of a training run; raises UserError where there is none."""
    found = find_checkpoints(folder)
    if not found:
        raise UserError(f"{folder}: no checkpoints here; train first, or set sample.checkpoint")
    return found[max(found)]


def load_checkpoint_model(checkpoint: Path) -> tuple[LightningDiT, Schedule]:
    """The averaged network of a training checkpoint, or that of `lwd convert`, and the schedule that goes with it.

    Raises UserError where there is none, or the schedule beside it is not the one it was trained under.
    """
    model = load_model(weights_folder(checkpoint)).eval()
    schedule = Schedule.load(checkpoint / "schedule.json")
    if (checkpoint / STATE).is_file():
        trained = read_state(checkpoint)["recipe"].get("schedule")
        if trained != schedule.hash():
            raise UserError(f"{checkpoint}: trained under schedule {trained}, its schedule.json is {schedule.hash()}")
    return model, schedule


def weights_folder(checkpoint: Path) -> Path:
    """Where a checkpoint's averaged network lies, as `load_model` reads it."""
    if not checkpoint.is_dir():
        raise UserError(f"{checkpoint}: no such checkpoint folder")
    return checkpoint if (checkpoint / WEIGHTS).is_file() else checkpoint / "ema"


def fingerprint(checkpoint: Path) -> str:
    """What tells two networks apart: a hash of the weights."""
    return checksum(weights_folder(checkpoint) / WEIGHTS)[:12]


def check_fit(checkpoint: Path, model: LightningDiT, config: SampleConfig) -> None:
    """Raise UserError where a checkpoint is of another layout or other data; a converted one does not say."""
    layout = config.layout
    if model.layout.names != layout.names or model.layout.sizes != layout.sizes:
        raise UserError(f"{checkpoint}: model of layout {model.layout}, the config's layout is {layout}")
    if not (checkpoint / STATE).is_file():
        return
    trained_on, present = read_state(checkpoint)["recipe"].get("data"), config.data_fingerprint()
    if trained_on != present:
        raise UserError(f"{checkpoint}: trained on data {trained_on}, {config.data_path} is {present}")
