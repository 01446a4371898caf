"""The settings of `lwd sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from lwd.config import Batch, Config, FolderName, PathText
from lwd.ode.grids import Shift
from lwd.ode.methods import Solver
from lwd.ode.plan import Integration
from lwd.run import RunConfig
from lwd.sample.guidance import Interval, OneScale, Ramp, Scale
from lwd.schedules.choice import ScheduleChoice
from lwd.stages.sample.blocks import Format

ClassLabel = Annotated[int, Field(ge=0, lt=2**31)]


class RampSettings(Config):
    """A scale that goes from ``first`` to ``last``: `lwd.sample.Ramp`."""

    first: float
    """The scale at the noise."""
    last: float
    """The scale at the data."""
    shape: Literal["linear", "cosine"] = "linear"
    """How it goes from one to the other."""
    over: str | None = None
    """The group whose local time it goes along with; None: global time."""


class IntervalSettings(Config):
    """Guidance only while the local time of ``group`` lies in [low, high]."""

    group: str
    """By whose local time."""
    low: float = Field(default=0.0, ge=0, le=1)
    """Guide from this local time on,"""
    high: float = Field(default=1.0, ge=0, le=1)
    """and up to this one."""

    @model_validator(mode="after")
    def _low_is_lower(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self


ScaleSettings = float | RampSettings | dict[str, float | RampSettings]
"""A number or a ramp, for all groups or by name."""


class GuidanceSettings(Config):
    """None, AutoGuidance from a weak model's folder, classifier-free guidance, or both at once."""

    kind: Literal["none", "auto", "classifier_free", "both"] = "none"
    """By a weak model (auto), by no class (classifier_free), or both."""
    scale: ScaleSettings = 1.5
    """Of the one kind; of both, AutoGuidance's."""
    free_scale: ScaleSettings = 1.5
    """Of both: that of classifier-free guidance."""
    interval: IntervalSettings | None = None
    weak: Path | None = None
    """Checkpoint folder of the weak model, trained under the same schedule."""


class DecoderSettings(Config):
    """An autoencoder for data whose manifest names no decoder, such as SFD's released latents."""

    group: str | None = None
    """None: the only one with as many channels as the VAE has."""
    path: PathText
    """A released .ckpt of the SD-VAE, a diffusers folder, or a Hub id."""


class SampleSettings(Config):
    """What to sample, and how (the paper's solver settings)."""

    checkpoint: Path | None = None
    """A checkpoint folder; None: the newest of `RunConfig.trained`."""
    schedule: ScheduleChoice | None = None
    """Of a network trained at joint times: the schedule to sample under, as `offset:0.3`; None: the checkpoint's own.
    A network trained under one schedule is sampled under no other."""
    name: FolderName | None = None
    """Results go to OUTPUT/samples/NAME; None: named after the checkpoint."""
    num: PositiveInt = 1000
    """How many images."""
    batch: Batch = 250
    """How many samples the network sees at once."""
    block: PositiveInt = 2000
    """How many are finished and written together: what a killed run loses at the most, for each process."""
    formats: tuple[Format, ...] = ("npz",)
    """npz: as ADM's evaluator reads it; png, webp (lossless): a file each; latents: shards."""
    labels: Literal["balanced", "null"] | tuple[ClassLabel, ...] = "balanced"
    """All classes in turn, none, or these in turn."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the first image's noise and label; each has its own."""
    solver: Solver = "dopri5"
    """docs/sampling.md compares them."""
    steps: PositiveInt = 50
    """Steps of the fixed-step solvers; dopri5 chooses its own."""
    grid: Literal["uniform", "arc_length"] | PositiveFloat = "uniform"
    """Of the fixed-step solvers: equal in global time, along the schedule, or a timestep shift (`lwd.ode.Shift`)."""
    atol: PositiveFloat = 1e-6
    """Absolute tolerance of dopri5."""
    rtol: PositiveFloat = 1e-3
    """Relative tolerance of dopri5."""
    guidance: GuidanceSettings = GuidanceSettings()
    decoder: DecoderSettings | None = None
    """None: the one in the data's manifest."""
    trace: NonNegativeInt = 0
    """Of how many samples the path is kept too, at ``trace_points`` global times: trajectory.safetensors and .png."""
    trace_points: int = Field(default=9, ge=2)
    """Global times of each path, from 0 to 1."""

    @field_validator("labels", mode="before")
    @classmethod
    def _null_is_a_word(cls, labels: Any) -> Any:
        return "null" if labels is None else labels

    @model_validator(mode="after")
    def _formats_are_some(self) -> Self:
        if not self.formats or len(set(self.formats)) < len(self.formats):
            raise ValueError(f"formats: {list(self.formats)} must name at least one, each once")
        if {"png", "webp"} <= set(self.formats):
            raise ValueError("formats: png and webp exclude each other")
        if self.labels == ():
            raise ValueError("labels: name at least one class")
        return self

    @property
    def integration(self) -> Integration:
        """How the solver goes."""
        grid = self.grid if isinstance(self.grid, str) else Shift(self.grid)
        return Integration(self.solver, self.atol, self.rtol, self.steps, grid)


class SampleConfig(RunConfig):
    """Everything `run` reads."""

    sample: SampleSettings = SampleSettings()


def to_scale(settings: ScaleSettings) -> Scale:
    """What the settings describe."""
    if isinstance(settings, dict):
        return {name: _one(each) for name, each in settings.items()}
    return _one(settings)


def to_interval(settings: IntervalSettings | None) -> Interval | None:
    """What the settings describe."""
    return None if settings is None else Interval(settings.group, settings.low, settings.high)


def _one(settings: float | RampSettings) -> OneScale:
    if isinstance(settings, RampSettings):
        return Ramp(settings.first, settings.last, settings.shape, settings.over)
    return settings
