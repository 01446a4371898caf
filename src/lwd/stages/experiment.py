"""The one config of an experiment: every stage's section, so that one YAML file drives all commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from lwd.config import Config, Seed, merge, parse
from lwd.stages.encode.run import EncodeConfig
from lwd.stages.evaluate import EvaluateConfig
from lwd.stages.map import MapConfig
from lwd.stages.probe import SweepConfig
from lwd.stages.sample import SampleConfig
from lwd.stages.semvae import SemVAEConfig
from lwd.stages.train import TrainConfig, TrainSettings


class CompareSettings(Config):
    """Denoisers trained on equal terms: what each changes of ``train``, at which budgets, with which seeds."""

    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """By name, what each changes of ``train``."""
    budgets: tuple[PositiveInt, ...] = ()
    """Steps after which each is sampled and evaluated."""
    seeds: tuple[Seed, ...] = (0,)
    """Each variant is trained once with each."""
    processes: NonNegativeInt = 0
    """How many runs go side by side; 0: one per core, or one where there is a GPU."""


class Experiment(EncodeConfig, SemVAEConfig, SweepConfig, TrainConfig, MapConfig, SampleConfig, EvaluateConfig):
    """Each stage reads its own section and those of `RunConfig`; `lwd demo` also ``compare``."""

    compare: CompareSettings = CompareSettings()

    @property
    def trained(self) -> Path:
        """The run that ``train`` describes: `lwd sample` and `lwd map` take its newest checkpoint."""
        return self.output / "train" / self.train.name

    @model_validator(mode="after")
    def _variants_are_settings_of_train(self) -> Experiment:
        for name, values in (("seeds", self.compare.seeds), ("budgets", self.compare.budgets)):
            if len(set(values)) < len(values):
                raise ValueError(f"compare.{name}: {list(values)} repeats itself")
        for name in self.compare.variants:
            self.variant(name)
        return self

    def variant(self, name: str) -> TrainSettings:
        """The ``train`` section of one variant, before seed and budget."""
        changes = self.compare.variants[name]
        of_corrected = {"local_times", "draw", "times"} if changes.get("corrected") is False else set()
        base = self.train.model_dump(exclude=of_corrected) | {"name": name}  # SFD's objective draws its own way
        return parse(TrainSettings, merge(base, changes), f"compare.variants.{name}")
