"""The grid of the study: which cells there are, and the library's config of every run in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from lwd.config import Config, merge, parse
from lwd.errors import UserError
from lwd.runtime.checkpoint import checkpoint_path
from lwd.stages.experiment import CompareSettings, Experiment

Jacobian = Literal["stop", "exact"]
STOP, EXACT, COLLAPSED = "stop", "exact", "collapsed"
"""The learned schedules of a cell, OUTPUT/cells/CELL/schedules/NAME.json; variants name them in train.schedule.path."""


class EncoderSettings(Config):
    """A semantic encoder: what it changes of the experiment, in ``encode`` and ``groups``."""

    title: str
    changes: dict[str, Any] = Field(default_factory=dict)
    semvae_of: str | None = None
    """The encoder on whose shards' features a SemVAE is trained first."""
    shuffled: str | None = None
    """The encoder whose latents are dealt out anew among the images of a class: a control."""

    @property
    def base(self) -> str | None:
        """The encoder that must be there first."""
        return self.semvae_of or self.shuffled


class CellSettings(Config):
    """One place of the map: an encoder, conditional or not, and how much is run there."""

    encoder: str
    conditional: bool = True
    seeds: tuple[NonNegativeInt, ...] = (0,)
    budgets: tuple[PositiveInt, ...] = Field(min_length=1)
    variants: tuple[str, ...] = ()
    """Empty: all of ``compare.variants``."""
    solvers: tuple[str, ...] = ()
    """Beside ``sample``'s own, at the last budget."""
    guided: bool = False
    """AutoGuidance, at the last budget."""
    probe_seeds: tuple[NonNegativeInt, ...] = ()
    """Further seeds of the probe at the lambda that is found."""
    probe_lengths: tuple[PositiveInt, ...] = ()
    """Further lengths of it."""
    weaker: tuple[PositiveFloat, ...] = ()
    """Probes at so many times less than the weakest stable lambda, run to their full length; the last also with the
    exact Jacobian."""
    stronger: tuple[PositiveFloat, ...] = ()
    """Probes at so many times that lambda; their schedules are stronger-TIMES.json."""
    changes: dict[str, Any] = Field(default_factory=dict)
    """Of the experiment, in this cell: its network, for instance."""


class WeakSettings(Config):
    """The weak model of AutoGuidance: trained as the variant is, but smaller and shorter."""

    model: dict[str, Any] = Field(default_factory=dict)
    steps: PositiveInt = 1
    scale: NonNegativeFloat = 1.5


class StudySettings(Config):
    """Encoders, cells, solvers by name (changes of ``sample``), and what the page says of the design."""

    encoders: dict[str, EncoderSettings]
    cells: dict[str, CellSettings]
    main: str
    """The cell with the full comparison."""
    solvers: dict[str, dict[str, Any]] = Field(default_factory=dict)
    weak: WeakSettings = WeakSettings()
    regression_images: PositiveInt = 10_000
    """How many training images the regression of texture on semantics sees."""
    notes: tuple[str, ...] = ()
    """What was left out, and why; printed on the page."""


class StudyConfig(Experiment):
    """The study: a whole experiment, of which the cells change something."""

    study: StudySettings

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        s = self.study
        if s.main not in s.cells:
            raise ValueError(f"study.main: {s.main!r} is not one of the cells {list(s.cells)}")
        for name, encoder in s.encoders.items():
            _known(f"study.encoders.{name}", [encoder.base or name], s.encoders)
            if encoder.base is not None and s.encoders[encoder.base].base is not None:
                raise ValueError(f"study.encoders.{name}: {encoder.base!r} is itself made of another encoder")
        for name, cell in s.cells.items():
            _known(f"study.cells.{name}.encoder", [cell.encoder], s.encoders)
            _known(f"study.cells.{name}.variants", cell.variants, self.compare.variants)
            _known(f"study.cells.{name}.solvers", cell.solvers, s.solvers)
        return self


@dataclass(frozen=True)
class Run:
    """One training: ``weak``: the weak model of the variant's guidance."""

    cell: str
    variant: str
    seed: int
    weak: bool = False

    @property
    def name(self) -> str:
        """Its folder."""
        return f"weak-{self.variant}" if self.weak else f"{self.variant}-seed{self.seed}"


@dataclass(frozen=True)
class Measurement:
    """Samples of one checkpoint, made in one way; ``solver`` None: ``sample``'s own."""

    run: Run
    steps: int
    solver: str | None = None
    guided: bool = False

    @property
    def name(self) -> str:
        """Its folder."""
        parts = [self.run.name, str(self.steps), self.solver or "", "guided" if self.guided else ""]
        return "-".join(part for part in parts if part)


def encoder_config(study: StudyConfig, name: str) -> Experiment:
    """What makes the latents of an encoder, in OUTPUT/encoders/NAME."""
    settings = study.study.encoders[name]
    changes = merge(settings.changes, {"output": study.output / "encoders" / name})
    if settings.semvae_of is not None:
        semantic = {"compress": "semvae", "semvae": semvae_folder(study, name)}
        changes = merge(changes, {"encode": merge(changes.get("encode", {}), {"semantic": semantic})})
    return parse(Experiment, merge(_plain(study), changes), f"study.encoders.{name}")


def encoders(study: StudyConfig) -> list[str]:
    """The encoders that some cell uses, and those that these are made of."""
    known = study.study.encoders
    used = {cell.encoder for cell in study.study.cells.values()}
    used |= {base for name in used if (base := known[name].base) is not None}
    return [name for name in known if name in used]


def semvae_folder(study: StudyConfig, name: str) -> Path:
    """Where `lwd semvae` leaves the encoder's model."""
    return study.output / "encoders" / name / "semvae" / "model"


def cell_config(study: StudyConfig, name: str) -> Experiment:
    """What all runs of a cell share, in OUTPUT/cells/NAME: its data, and whether labels are seen."""
    cell = study.study.cells[name]
    encoder = encoder_config(study, cell.encoder)
    changes: dict[str, Any] = {"output": study.output / "cells" / name, "data": {"path": encoder.data_path}}
    changes = merge(cell.changes, changes)
    if not cell.conditional:
        never = {"label_dropout": 1.0}
        changes = merge(changes, {"probe": never, "train": never, "sample": {"labels": "null"}})
    return parse(Experiment, merge(encoder.model_dump(), changes), f"study.cells.{name}")


def schedule_file(study: StudyConfig, cell: str, name: str) -> Path:
    """Where a cell's learned schedule lies."""
    return study.output / "cells" / cell / "schedules" / f"{name}.json"


def run_config(study: StudyConfig, run: Run) -> Experiment:
    """The config of a training run."""
    cell, weak = study.study.cells[run.cell], study.study.weak
    config = cell_config(study, run.cell)
    changes = dict(study.compare.variants[run.variant])
    train = config.model_copy(update={"compare": CompareSettings(variants={run.variant: changes})}).variant(run.variant)
    if train.schedule.path is not None:
        path = schedule_file(study, run.cell, train.schedule.path.stem)
        train = train.model_copy(update={"schedule": train.schedule.model_copy(update={"path": path})})
    steps = (weak.steps,) if run.weak else cell.budgets
    train = train.model_copy(update={"name": run.name, "steps": max(steps), "checkpoint_steps": steps})
    config = config.model_copy(update={"seed": run.seed, "train": train})
    if run.weak:
        config = parse(Experiment, merge(config.model_dump(), {"model": weak.model}), "study.weak.model")
    return config


def sample_config(study: StudyConfig, measurement: Measurement) -> Experiment:
    """The config of a measurement's samples. Runs of one seed share noise and labels, so that they can be paired."""
    run = measurement.run
    config = run_config(study, run)
    checkpoint = checkpoint_path(config.output / "train" / run.name, measurement.steps)
    changes: dict[str, Any] = {"checkpoint": checkpoint, "name": measurement.name, "seed": run.seed}
    if measurement.solver:
        changes |= study.study.solvers[measurement.solver]
    if measurement.guided:
        weak = weak_run(study, run)
        folder = checkpoint_path(config.output / "train" / weak.name, study.study.weak.steps)
        changes["guidance"] = {"kind": "auto", "scale": study.study.weak.scale, "weak": folder}
    return parse(Experiment, merge(config.model_dump(), {"sample": changes}), f"measurement {measurement.name}")


def weak_run(study: StudyConfig, run: Run) -> Run:
    """The weak model of a run's guidance: one serves all seeds, the first one's."""
    return Run(run.cell, run.variant, study.study.cells[run.cell].seeds[0], weak=True)


def variants(study: StudyConfig, cell: str) -> tuple[str, ...]:
    """The variants of a cell whose schedules exist: where every lambda collapsed there is no learned one."""
    return tuple(name for name in _variants(study, cell) if _has_schedule(study, cell, name))


def runs(study: StudyConfig) -> list[Run]:
    """Every training, weak models first."""
    cells = study.study.cells
    main = [Run(c, v, seed) for c in cells for seed in cells[c].seeds for v in variants(study, c)]
    weak = dict.fromkeys(weak_run(study, run) for run in main if cells[run.cell].guided)
    return [*weak, *main]


def measurements(study: StudyConfig) -> list[Measurement]:
    """Everything that is sampled and measured."""
    found = []
    for run in (run for run in runs(study) if not run.weak):
        cell = study.study.cells[run.cell]
        last = max(cell.budgets)
        found += [Measurement(run, steps) for steps in cell.budgets]
        found += [Measurement(run, last, solver) for solver in cell.solvers]
        found += [Measurement(run, last, guided=True)] if cell.guided else []
    return found


def check(study: StudyConfig) -> None:
    """Build the config of whatever may be run, so that a mistake shows now and not after hours. Raises UserError."""
    for name, cell in study.study.cells.items():
        for variant in _variants(study, name):
            path = study.compare.variants[variant].get("schedule", {}).get("path")
            if path is not None and not re.fullmatch(f"{STOP}|{EXACT}|{COLLAPSED}|stronger-.*", Path(path).stem):
                raise UserError(f"compare.variants.{variant}: no probe makes {path}")
            run = Run(name, variant, min(cell.seeds, default=0))
            ways = [
                (None, False),
                *((solver, False) for solver in cell.solvers),
                *([(None, True)] if cell.guided else []),
            ]
            for solver, guided in ways if cell.seeds else ():
                sample_config(study, Measurement(run, max(cell.budgets), solver, guided))


def _variants(study: StudyConfig, cell: str) -> tuple[str, ...]:
    return study.study.cells[cell].variants or tuple(study.compare.variants)


def _has_schedule(study: StudyConfig, cell: str, variant: str) -> bool:
    path = study.compare.variants[variant].get("schedule", {}).get("path")
    return path is None or schedule_file(study, cell, Path(path).stem).is_file()


def _plain(study: StudyConfig) -> dict[str, Any]:
    """The study's experiment without the grid, so that no result depends on what else is run."""
    return study.model_dump(exclude={"study", "compare"})


def _known(where: str, names: Any, known: Mapping[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{where}: {name!r} is not one of {list(known)}")
