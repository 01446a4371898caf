"""Model folders (config.json and model.safetensors): written by the Hub mixin, read with errors that teach."""

from __future__ import annotations

from pathlib import Path

from lwd.errors import UserError
from lwd.files import checksum, read_json
from lwd.groups import Layout
from lwd.models.lightningdit import LightningDiT
from lwd.runtime.checkpoint import STATE, find_checkpoints, read_state
from lwd.runtime.hub import CONFIG, WEIGHTS, load_weights
from lwd.schedules import Schedule


def load_model(folder: Path) -> LightningDiT:
    """A model folder -> the network, on the CPU. Raises UserError for a missing, damaged or foreign folder."""
    config = read_json(folder / CONFIG)
    try:
        model = LightningDiT(**{**config, "layout": Layout(config["layout"])})
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / CONFIG}: not a LightningDiT's config ({error})") from error
    load_weights(model, folder)
    return model


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
