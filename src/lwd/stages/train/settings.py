"""The settings of `lwd train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from lwd.config import Batch, Config, FolderName
from lwd.flow import TIME_DISTRIBUTIONS, Reduction, TimeDistribution
from lwd.flow.losses import COSINE_NORM_FLOOR
from lwd.run import RunConfig
from lwd.schedules import Schedule
from lwd.schedules.choice import ScheduleChoice
from lwd.schedules.schedule import TIMES
from lwd.stages.train.sampled_settings import SampledSettings
from lwd.times import AlongSchedule, Draw, Uncorrected
from lwd.times.joint import Joint
from lwd.times.settings import Densities, JointTimes, LocalTimes, densities_of, joint_times
from lwd.training.optim import LRSchedule, lr_factor
from lwd.training.power_ema import SigmaRel, SnapshotType


class LoRASettings(Config):
    """Adapters of low rank in a network that is otherwise frozen."""

    rank: PositiveInt = 16
    """Of each adapter."""
    alpha: PositiveInt = 16
    """An adapter counts alpha / rank times."""
    targets: tuple[str, ...] = ("blocks.*",)
    """Patterns of the names of linear layers that get one."""


class TrainSettings(Config):
    """Stage II; the defaults are the paper's ImageNet values (Table 5)."""

    name: FolderName = "learned"
    """The run's folder: OUTPUT/train/NAME."""
    schedule: ScheduleChoice = ScheduleChoice()
    init_from: Path | None = None
    """A checkpoint, a model folder or an SFD file whose averaged weights training begins with, also where groups, grid
    or schedule are others (docs/finetune.md); the optimiser and the averages start afresh."""
    init_classes: dict[int, int] | None = None
    """{label here: label there} of ``init_from``'s classes; others begin as new. None: the same labels."""
    freeze: tuple[str, ...] = ()
    """Patterns of parameters' names that do not train, e.g. ["blocks.0.*", "y_embedder.*"]."""
    lora: LoRASettings | None = None
    """Train adapters in ``init_from``'s network instead of its weights (docs/finetune.md)."""
    steps: PositiveInt = 400_000
    """Of training."""
    batch: Batch = 256
    """Images in a step, of all processes together."""
    lr: PositiveFloat = 1e-4
    """Of AdamW."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises linearly to ``lr``; the first has lr / warmup_steps."""
    lr_schedule: LRSchedule = "constant"
    """How it goes on: constant, the paper's, or falling to ``lr_final`` over all ``steps``, which are then fixed."""
    lr_final: NonNegativeFloat = 0.0
    """Where cosine and linear end."""
    weight_decay: NonNegativeFloat = 0.0
    """Of AdamW."""
    ema_decay: float = Field(default=0.9999, ge=0, le=1)
    """Of the average of the weights that is sampled from, in a step."""
    posthoc_ema: tuple[SigmaRel, ...] = ()
    """Widths sigma_rel of power-function averages tracked beside it, e.g. [0.05, 0.1]; `lwd ema` makes any other."""
    posthoc_every: PositiveInt = 10_000
    """Steps between two of their snapshots, which are kept for good in OUTPUT/train/NAME/posthoc; one at the end."""
    posthoc_dtype: SnapshotType = "float32"
    """Of the weights in them; float16 takes half the disk and rounds what `lwd ema` makes of them (docs/ema.md)."""
    corrected: bool = True
    """Weight each group's loss so that its local times have the density ``local_times`` (Eq. 33); SFD's own objective
    does not, and draws tau by ``time_distribution``."""
    time_distribution: TimeDistribution = "uniform"
    """Of tau where ``corrected`` is off."""
    local_times: Densities = LocalTimes()
    """The density of each group's local time, for all groups or by name."""
    draw: Draw = "uniform"
    """Of tau: uniform, the paper's, or balanced, with which no weight is above the number of groups."""
    times: JointTimes | None = None
    """Local times of no schedule, as {kind: independent}: the network is then sampled under any (`sample.schedule`)."""
    reduction: Reduction = "mean_flat"
    """Of entries to a loss: mean_flat over all (Appendix B), or the mean of group means (Eq. 37)."""
    cosine_weight: NonNegativeFloat = 1.0
    """Of the direction loss."""
    cosine_floor: float = Field(default=COSINE_NORM_FLOOR, ge=1e-12, le=1)
    """The norm below which the direction term is linear in the velocity; SFD's code has 1e-8 (docs/imagenet.md)."""
    repa_weight: NonNegativeFloat = 1.0
    """Of the REPA loss; 0: no head."""
    label_dropout: float = Field(default=0.1, ge=0, le=1)
    """How many labels are replaced by none, for guidance."""
    checkpoint_steps: tuple[PositiveInt, ...] = ()
    """Steps whose checkpoints are kept for good, beside the periodic ones of ``compute``."""
    heldout_every: NonNegativeInt = 0
    """Steps between two measurements of the average's loss on held-out images, and one at the end; 0: none."""
    evaluate_every: NonNegativeInt = 0
    """Steps between two measurements of the average's samples, as ``evaluate`` says, and one at the end; 0: none."""
    evaluate: SampledSettings = SampledSettings()
    preview_every: NonNegativeInt = 0
    """Steps between two pictures of samples in OUTPUT/train/NAME/previews, and one at the end; 0: none."""
    preview_images: PositiveInt = 16
    """Of each preview."""

    @model_validator(mode="before")
    @classmethod
    def _joint_times_need_no_schedule(cls, data: Any) -> Any:
        """Joint times that ask for no schedule have the synchronous one, for previews and as a default in sampling.

        It stands in the run's config.yaml, so that this can be run again.
        """
        if isinstance(data, dict) and data.get("times") is not None and "schedule" not in data:
            return {**data, "schedule": "synchronous"}
        return data

    @model_validator(mode="after")
    def _one_way_to_draw(self) -> Self:
        asked = self.local_times != LocalTimes() or self.draw != "uniform" or self.times is not None
        if asked and not (self.corrected and self.time_distribution == "uniform"):
            raise ValueError(
                "local_times, draw and times are of the corrected loss: leave corrected and time_distribution alone"
            )
        if self.time_distribution != "uniform" and self.corrected:
            raise ValueError(
                "time_distribution is of corrected: false (SFD's objective); for the density of local times under the "
                f"corrected loss set local_times: {{density: {self.time_distribution}}}"
            )
        return self

    @field_validator("init_classes", mode="before")
    @classmethod
    def _labels_in_files(cls, classes: Any) -> Any:
        """A config.yaml that a run left has the keys as text."""
        if not isinstance(classes, dict):
            return classes
        return {int(key) if isinstance(key, str) and key.isdecimal() else key: of for key, of in classes.items()}

    @model_validator(mode="after")
    def _classes_are_of_a_start(self) -> Self:
        if self.init_classes is not None and self.init_from is None:
            raise ValueError("init_classes: says what the classes of init_from become; set that, too")
        return self

    @model_validator(mode="after")
    def _adapters_need_a_network(self) -> Self:
        if self.lora is not None and self.init_from is None:
            raise ValueError("lora: adapts a trained network; say which by init_from")
        if self.lora is not None and (self.freeze or self.posthoc_ema):
            raise ValueError("lora: freezes all but its adapters, and keeps one average; leave out freeze, posthoc_ema")
        return self

    @model_validator(mode="after")
    def _rate_falls(self) -> Self:
        if self.lr_schedule == "constant":
            if self.lr_final:
                raise ValueError(
                    f"lr_final {self.lr_final:g} is of a rate that falls: set lr_schedule=cosine or linear"
                )
        elif self.lr_final > self.lr:
            raise ValueError(f"lr_final {self.lr_final:g} must be at most lr = {self.lr:g}")
        elif self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be under steps = {self.steps}: no step is left")
        return self

    @field_validator("posthoc_ema")
    @classmethod
    def _widths_differ(cls, widths: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(widths)) < len(widths):
            raise ValueError(f"{list(widths)} repeats itself")
        return widths

    def recipe(self) -> dict[str, Any]:
        """What decides the result, for `RunConfig.recipe`."""
        ignored = {"name", "steps", "checkpoint_steps", "schedule", "heldout_every", "posthoc_every", "posthoc_dtype"}
        ignored |= {"evaluate_every", "evaluate", "preview_every", "preview_images", "init_from"}
        ignored |= self.at_default("posthoc_ema", "local_times", "draw", "times", "cosine_floor")
        ignored |= self.at_default("init_classes", "freeze", "lora", "warmup_steps", "lr_schedule", "lr_final")
        until = {} if self.lr_schedule == "constant" else {"steps": self.steps}  # last: the schedule differs first
        return self.model_dump(mode="json", exclude=ignored) | until

    @property
    def lr_changes(self) -> bool:
        """Whether the learning rate depends on the step."""
        return self.warmup_steps > 0 or self.lr_schedule != "constant"

    def lr_at(self, step: int) -> float:
        """The learning rate in ``step`` (from 0), a pure function of it."""
        return self.lr * lr_factor(step, self.steps, self.warmup_steps, self.lr_schedule, self.lr_final / self.lr)


class TrainConfig(RunConfig):
    """Everything `run` reads."""

    train: TrainSettings = TrainSettings()

    @model_validator(mode="after")
    def _densities_are_of_groups(self) -> Self:
        densities_of(self.train.local_times, self.layout.names)
        return self


def choose_schedule(config: TrainConfig) -> Schedule:
    """The schedule that ``train.schedule`` asks for, checked against the layout."""
    settings = config.train
    schedule = settings.schedule.make(
        config.layout,
        config.leader,
        config.output / "schedule.json",
        "run lwd sweep first, or set train.schedule.path to one that lwd probe wrote, or train.schedule.kind to "
        "synchronous or offset",
    )
    if settings.times is not None:
        schedule.provenance[TIMES] = settings.times.kind
    return schedule


def time_draws(settings: TrainSettings, schedule: Schedule) -> AlongSchedule | Uncorrected | Joint:
    """How local times and weights are drawn."""
    if not settings.corrected:
        return Uncorrected(schedule, TIME_DISTRIBUTIONS[settings.time_distribution])
    densities = densities_of(settings.local_times, schedule.names)
    if settings.times is not None:
        return joint_times(settings.times, densities, schedule, settings.draw)
    return AlongSchedule(schedule, densities, settings.draw)
