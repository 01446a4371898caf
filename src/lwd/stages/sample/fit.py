"""The networks that `lwd sample` samples from: what lies in a checkpoint's folder, and whether it fits."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from lwd.encoders.decoder import check_data
from lwd.errors import UserError
from lwd.models import record_of
from lwd.stages.sample.settings import SampleConfig


def check_fit(checkpoint: Path, model: nn.Module, config: SampleConfig) -> None:
    """Raise UserError where a checkpoint is of another layout or other data; a converted one does not say."""
    layout, own = config.layout, record_of(model).layout
    if list(map(str, own.groups)) != list(map(str, layout.groups)):  # names, channels, shapes; weights may differ
        raise UserError(f"{checkpoint}: model of layout {own}, the config's layout is {layout}")
    check_data(checkpoint, config.data_path)
