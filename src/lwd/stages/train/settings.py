"""The settings of `lwd train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from lwd.config import Batch, Config, FolderName
from lwd.flow import Reduction, TimeDistribution
from lwd.run import RunConfig
from lwd.training.power_ema import SigmaRel, SnapshotType


class ScheduleChoice(Config):
    """Which schedule to train under."""

    kind: Literal["learned", "synchronous", "offset"] = "learned"
    path: Path | None = None
    """The file of a learned schedule; None: OUTPUT/schedule.json, where `lwd sweep` puts the chosen one."""
    delta: NonNegativeFloat = 0.3


class TrainSettings(Config):
    """Stage II; the defaults are the paper's ImageNet values (Table 5)."""

    name: FolderName = "learned"
    """The run's folder: OUTPUT/train/NAME."""
    schedule: ScheduleChoice = ScheduleChoice()
    steps: PositiveInt = 400_000
    batch: Batch = 256
    lr: PositiveFloat = 1e-4
    weight_decay: NonNegativeFloat = 0.0
    ema_decay: float = Field(default=0.9999, ge=0, le=1)
    posthoc_ema: tuple[SigmaRel, ...] = ()
    """Widths sigma_rel of power-function averages tracked beside it, e.g. [0.05, 0.1]; `lwd ema` makes any other."""
    posthoc_every: PositiveInt = 10_000
    """Steps between two of their snapshots, which are kept for good in OUTPUT/train/NAME/posthoc; one at the end."""
    posthoc_dtype: SnapshotType = "float32"
    """Of the weights in them; float16 takes half the disk and rounds what `lwd ema` makes of them (docs/ema.md)."""
    corrected: bool = True
    """Weight each group's loss by t_g' (Eq. 33); SFD's own objective does not."""
    time_distribution: TimeDistribution = "uniform"
    reduction: Reduction = "mean_flat"
    cosine_weight: NonNegativeFloat = 1.0
    repa_weight: NonNegativeFloat = 1.0
    label_dropout: float = Field(default=0.1, ge=0, le=1)
    checkpoint_steps: tuple[PositiveInt, ...] = ()
    """Steps whose checkpoints are kept for good, beside the periodic ones of ``compute``."""
    heldout_every: NonNegativeInt = 0
    """Steps between two measurements of the average's loss on held-out images, and one at the end; 0: none."""
    preview_every: NonNegativeInt = 0
    """Steps between two pictures of samples in OUTPUT/train/NAME/previews, and one at the end; 0: none."""
    preview_images: PositiveInt = 16

    @field_validator("posthoc_ema")
    @classmethod
    def _widths_differ(cls, widths: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(widths)) < len(widths):
            raise ValueError(f"{list(widths)} repeats itself")
        return widths

    def recipe(self) -> dict[str, Any]:
        """What decides the result, for `RunConfig.recipe`."""
        ignored = {"name", "steps", "checkpoint_steps", "schedule", "heldout_every", "posthoc_every", "posthoc_dtype"}
        ignored |= {"preview_every", "preview_images"}
        if not self.posthoc_ema:  # as in checkpoints of before there were any
            ignored.add("posthoc_ema")
        return self.model_dump(mode="json", exclude=ignored)


class TrainConfig(RunConfig):
    """Everything `run` reads."""

    train: TrainSettings = TrainSettings()
