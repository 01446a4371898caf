"""The settings of `lwd sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from lwd.config import Config
from lwd.runtime.run import RunConfig
from lwd.sample.blocks import Format
from lwd.sample.ode import Solver


class GuidanceSettings(Config):
    """None, AutoGuidance from a weak model's folder, or classifier-free guidance."""

    kind: Literal["none", "auto", "classifier_free"] = "none"
    scale: float | dict[str, float] = 1.5
    weak: Path | None = None
    """Checkpoint folder of the weak model, trained under the same schedule."""


class DecoderSettings(Config):
    """An SD-VAE for data whose manifest names no decoder, such as SFD's released latents."""

    group: str = "tex"
    path: Path


class SampleSettings(Config):
    """What to sample, and how (the paper's solver settings)."""

    checkpoint: Path | None = None
    """A checkpoint folder; None: the newest of OUTPUT/train/learned."""
    name: str | None = None
    """Results go to OUTPUT/samples/NAME; None: named after the checkpoint."""
    num: PositiveInt = 1000
    batch: PositiveInt = 250
    """How many samples the network sees at once."""
    block: PositiveInt = 2000
    """How many are finished and written together: what a killed run loses at the most, for each process."""
    formats: tuple[Format, ...] = ("npz",)
    """npz: as ADM's evaluator reads it; png, webp (lossless): a file each; latents: shards."""
    labels: Literal["balanced", "null"] | tuple[NonNegativeInt, ...] = "balanced"
    """All classes in turn, none, or these in turn."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    solver: Solver = "dopri5"
    steps: PositiveInt = 50
    """Steps of the fixed-step solvers; dopri5 chooses its own."""
    atol: PositiveFloat = 1e-6
    rtol: PositiveFloat = 1e-3
    guidance: GuidanceSettings = GuidanceSettings()
    decoder: DecoderSettings | None = None
    """None: the one in the data's manifest."""
    trace: NonNegativeInt = 0
    """Of how many samples the path is kept too, at ``trace_points`` global times: trajectory.safetensors and .png."""
    trace_points: int = Field(default=9, ge=2)

    @model_validator(mode="after")
    def _formats_are_some(self) -> Self:
        if not self.formats or len(set(self.formats)) < len(self.formats):
            raise ValueError(f"formats: {list(self.formats)} must name at least one, each once")
        if {"png", "webp"} <= set(self.formats):
            raise ValueError("formats: png and webp exclude each other")
        if self.labels == ():
            raise ValueError("labels: name at least one class")
        return self


class SampleConfig(RunConfig):
    """Everything `run` reads."""

    sample: SampleSettings = SampleSettings()
