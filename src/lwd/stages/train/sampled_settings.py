"""The settings of measuring samples while a denoiser trains."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from lwd.config import Batch, Config
from lwd.ode.methods import Solver


class SampledSettings(Config):
    """What is drawn and measured every ``evaluate_every`` steps."""

    samples: int = Field(default=1000, ge=2, le=10**6)
    """How many, of all classes in turn, always from the same seeds."""
    features: Literal["classifier", "inception", "dinov2"] = "classifier"
    """In whose features the Fréchet distance to the held-out images is taken: those of the classifier that `lwd encode`
    leaves (encode.judge), which gives the accuracy too, of Inception (FID), or of DINOv2."""
    solver: Solver = "heun"
    """As ``sample.solver``,"""
    steps: PositiveInt = 20
    """``sample.steps``,"""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """``sample.seed``"""
    batch: Batch = 250
    """and ``sample.batch``; with the same values `lwd sample` draws the same, without guidance."""
    weights: Path | None = None
    """Inception's, as ``evaluate.weights``; None: where torch.hub keeps them."""
    allow_other_weights: bool = False
    """Take weights that are not the published ones."""
    dinov2: Path | None = None
    """DINOv2's folder, as ``evaluate.dinov2``."""
