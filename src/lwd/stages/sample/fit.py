"""The networks that `lwd sample` samples from: what lies in a checkpoint's folder, and whether it fits."""

from __future__ import annotations

from pathlib import Path

from lwd.errors import UserError
from lwd.models import LightningDiT
from lwd.runtime.checkpoint import STATE, read_state
from lwd.stages.sample.settings import SampleConfig


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
