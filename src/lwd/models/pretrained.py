"""Model folders (config.json and model.safetensors): read with errors that teach."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from lwd.errors import UserError
from lwd.files import checksum
from lwd.models.build import GIVEN, build_network
from lwd.models.lightningdit import LightningDiT
from lwd.models.record import read_record
from lwd.models.registry import BUILDERS
from lwd.runtime.checkpoint import STATE, find_checkpoints, read_state, verify
from lwd.runtime.hub import CONFIG, WEIGHTS, load_weights
from lwd.schedules import Schedule

SCHEDULE = "schedule.json"


def load_model(folder: str | Path, network: str | None = None) -> nn.Module:
    """Load the network of a model folder, on the CPU.

    Any LightningDiT; another network only where the caller names what builds it, ``network``, or it is registered: a
    folder alone never decides what code is run. Raises UserError for a missing, damaged or foreign folder.
    """
    folder = Path(folder)
    record = read_record(folder)
    if record.network is None:
        try:
            model: nn.Module = LightningDiT(**record.arguments)
        except (TypeError, ValueError) as error:
            raise UserError(f"{folder / CONFIG}: not a LightningDiT's config ({error})") from error
    elif record.network == network or record.network in BUILDERS:
        own = {key: value for key, value in record.arguments.items() if key not in GIVEN}
        feature_dim = record.arguments.get("feature_dim")
        model = build_network(record.network, record.layout, record.shape, record.num_classes, own, feature_dim)
    else:
        raise UserError(
            f"{folder}: holds a network of {record.network!r}, whose code only you can have run; "
            f"set model.name={record.network} if you trust it"
        )
    load_weights(model, folder)
    return model


def load_lightningdit(folder: Path) -> LightningDiT:
    """Load a LightningDiT as `load_model` does. Raises UserError for the folder of another network, too."""
    own = read_record(folder).network
    if own is not None:
        raise UserError(f"{folder}: holds a network of {own!r}; only a LightningDiT can be used here")
    model = load_model(folder)
    assert isinstance(model, LightningDiT)
    return model


def newest_checkpoint(folder: Path) -> Path:
    """The newest checkpoint of a training run; raises UserError where there is none."""
    found = find_checkpoints(folder)
    if not found:
        raise UserError(f"{folder}: no checkpoints here; train first, or set sample.checkpoint")
    return found[max(found)]


def load_checkpoint_model(checkpoint: Path, network: str | None = None) -> tuple[nn.Module, Schedule]:
    """The averaged network of a training checkpoint, or that of `lwd convert`, and the schedule that goes with it.

    ``network``: as for `load_model`. Raises UserError where there is none, it has no schedule, or the schedule beside
    it is not the one it was trained under.
    """
    weights = weights_folder(checkpoint)
    state = read_state(checkpoint) if (checkpoint / STATE).is_file() else None
    if state is not None:
        verify(checkpoint, state, *(() if weights == checkpoint else (weights.name, SCHEDULE)))
    else:
        require_schedule(checkpoint)
    model = load_model(weights, network).eval()
    schedule = Schedule.load(checkpoint / SCHEDULE)
    if state is not None:
        trained = state.recipe.get("schedule")
        if trained != schedule.hash():
            raise UserError(f"{checkpoint}: trained under schedule {trained}, its schedule.json is {schedule.hash()}")
    return model, schedule


def require_schedule(checkpoint: Path) -> None:
    """Raise UserError, with the ways to give it, where there is a network without a schedule: none is guessed."""
    if (checkpoint / WEIGHTS).is_file() and not (checkpoint / SCHEDULE).is_file():
        names, choices = ",".join(read_record(checkpoint).layout.names), "FILE|offset:0.3|synchronous"
        raise UserError(
            f"{checkpoint}: a network without {SCHEDULE}, and none is guessed; give what it was trained under by "
            f"`lwd convert ... --schedule {choices}`, or by `lwd schedule save {choices} {checkpoint / SCHEDULE} "
            f"--groups {names} --leader GROUP`; where nobody knows, `lwd schedule infer {checkpoint} --data DATA` looks"
        )


def weights_folder(checkpoint: Path) -> Path:
    """The folder of a checkpoint's averaged network, for `load_model`."""
    if not checkpoint.is_dir():
        raise UserError(f"{checkpoint}: no such checkpoint folder")
    return checkpoint if (checkpoint / WEIGHTS).is_file() else checkpoint / "ema"


def fingerprint(checkpoint: Path) -> str:
    """A hash of the weights, which tells two networks apart."""
    return checksum(weights_folder(checkpoint) / WEIGHTS)[:12]
