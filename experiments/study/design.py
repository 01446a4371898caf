"""The study's design: data sets, cells of factors, hypotheses with the sign that is expected, and each run's config."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from lwd.config import Config, Seed, merge, parse
from lwd.errors import UserError
from lwd.runtime.checkpoint import checkpoint_path
from lwd.stages.experiment import Experiment

Density = Literal["uniform", "logit_normal"]
Sign = Literal["lower", "higher", "none"]
Metric = Literal["frechet", "accuracy", "precision", "recall"]

ALGORITHM_1, EXACT, MAP_LOSS, MAP_RULE = "algorithm-1", "exact-jacobian", "map-loss", "map-algorithm-1"
LEARNED = {
    ALGORITHM_1: "the paper's: the weakest lambda whose probe does not collapse, with the stopped Jacobian",
    EXACT: "the same lambda, with the exact Jacobian",
    MAP_LOSS: "the spline whose held-out loss is least on the map of one joint-time network",
    MAP_RULE: "Algorithm 1 followed on that map, at its weakest lambda that does not collapse",
}
"""The paths that data decide, OUTPUT/DATA/schedules/NAME.json; all others are the library's names, as offset:0.3."""
JOINT = "joint"
"""The run at independent times."""


class DataSettings(Config):
    """One set of latents: what it changes of the experiment."""

    title: str
    changes: dict[str, Any] = Field(default_factory=dict)
    shuffled: str | None = None
    """The data whose semantics are dealt out anew among the images of a class: a control."""
    learn: bool = True
    """Whether probes and a joint-time network look for schedules."""


class CellSettings(Config):
    """A full factorial of paths, densities and seeds."""

    data: str
    paths: tuple[str, ...] = Field(min_length=1)
    densities: tuple[Density, ...] = ("logit_normal",)
    corrected: bool = True
    """With Lemma 3.3's weights t'; off: SFD's objective, tau drawn by the density."""
    seeds: PositiveInt = 8
    """0 to seeds - 1."""
    budgets: tuple[PositiveInt, ...] = Field(min_length=1)
    solvers: tuple[str, ...] = ()
    """Beside the exact one, at the last budget."""
    guided: bool = False
    """AutoGuidance too, at the last budget."""
    extra: bool = False
    """Trained only where --extra asks for it: more than the preset's time has room for."""


class WeakSettings(Config):
    """The weak model of AutoGuidance: trained as the run is, but smaller and shorter, with seed 0."""

    model: dict[str, Any] = Field(default_factory=dict)
    steps: PositiveInt = 1
    scale: NonNegativeFloat = 1.5


class Way(Config):
    """What was measured, but for the seed."""

    data: str
    path: str
    density: Density = "logit_normal"
    corrected: bool = True
    steps: PositiveInt
    solver: str = "exact"
    guided: bool = False


class Hypothesis(Config):
    """``a`` against ``b``, which differ in what each says and share the rest; written down before the run."""

    says: str
    a: dict[str, Any]
    b: dict[str, Any]
    at: dict[str, Any]
    metric: Metric = "frechet"
    expected: Sign
    """Of a's metric less b's, beyond its interval, for exploratory ones by the adjusted p; none: not beyond it."""

    @property
    def ways(self) -> tuple[Way, Way]:
        """The two."""
        first, second = (parse(Way, merge(self.at, side), f"hypothesis {self.says!r}") for side in (self.a, self.b))
        return first, second


class StudySettings(Config):
    """What is run, and what is expected of it."""

    data: dict[str, DataSettings]
    cells: dict[str, CellSettings]
    solvers: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """By name, changes of ``sample``, which itself is the exact one."""
    weak: WeakSettings = WeakSettings()
    primary: str
    """The one hypothesis that the preset is for; the others are exploratory."""
    hypotheses: dict[str, Hypothesis]
    predict: bool = True
    """Whether Algorithm 1 is followed in closed form, too: minutes of 256 tokens, days of more."""
    regression_images: PositiveInt = 10_000
    """How many training images the regression of texture on semantics sees."""


class StudyConfig(Experiment):
    """The study: a whole experiment, of which data sets and runs change something."""

    study: StudySettings

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        s = self.study
        _known("study.primary", s.primary, s.hypotheses)
        for name, data in s.data.items():
            _known(f"study.data.{name}.shuffled", data.shuffled or name, s.data)
        for name, cell in s.cells.items():
            _known(f"study.cells.{name}.data", cell.data, s.data)
            for solver in cell.solvers:
                _known(f"study.cells.{name}.solvers", solver, s.solvers)
        designed = {way_of(one) for one in measurements(self)}
        for name, hypothesis in s.hypotheses.items():
            for way in hypothesis.ways:
                if way_key(way) not in designed:
                    raise ValueError(f"study.hypotheses.{name}: no cell measures {way_key(way)}")
        return self


@dataclass(frozen=True)
class Run:
    """One training; ``weak``: the weak model of its guidance."""

    data: str
    path: str
    density: Density
    corrected: bool
    seed: Seed
    weak: bool = False

    @property
    def name(self) -> str:
        """Its folder."""
        path = self.path.replace(":", "_")
        parts = [path, self.density, *["sfd"] * (not self.corrected), *["weak"] * self.weak, f"seed{self.seed}"]
        return "-".join(parts)


@dataclass(frozen=True)
class Measurement:
    """Samples of one checkpoint, made in one way."""

    run: Run
    steps: int
    solver: str = "exact"
    guided: bool = False

    @property
    def name(self) -> str:
        """Its folder."""
        return "-".join([self.run.name, str(self.steps), self.solver, *["guided"] * self.guided])


def learning(study: StudyConfig) -> list[str]:
    """The data sets on which schedules are looked for."""
    return [name for name, data in study.study.data.items() if data.learn]


def part_of(study: StudyConfig, data: Collection[str]) -> StudyConfig:
    """The study of these data sets alone, and of those that they are made of. Raises UserError for an unknown one."""
    settings = study.study
    if unknown := set(data) - settings.data.keys():
        raise UserError(f"--data: {sorted(unknown)} not among {list(settings.data)}")
    sources = {settings.data[name].shuffled for name in data} - set(data)
    only_encoded = {k: v.model_copy(update={"learn": False}) for k, v in settings.data.items() if k in sources}
    left = {"data": {k: only_encoded.get(k, v) for k, v in settings.data.items() if k in data or k in sources}}
    left |= {"cells": {k: v for k, v in settings.cells.items() if v.data in data}}
    return study.model_copy(update={"study": settings.model_copy(update=left)})


def without_extra(study: StudyConfig) -> StudyConfig:
    """The study without its extra cells."""
    cells = {name: cell for name, cell in study.study.cells.items() if not cell.extra}
    return study.model_copy(update={"study": study.study.model_copy(update={"cells": cells})})


def runs(study: StudyConfig) -> list[Run]:
    """Every training but the weak ones; seed by seed, so that what is finished of all paths is of the same seeds."""
    return sorted(dict.fromkeys(m.run for m in measurements(study)), key=lambda run: run.seed)


def measurements(study: StudyConfig) -> list[Measurement]:
    """Everything that is sampled and measured, each once."""
    return list(dict.fromkeys(_measurements(study)))


def _measurements(study: StudyConfig) -> Iterator[Measurement]:
    for cell in study.study.cells.values():
        last = max(cell.budgets)
        for seed, path, density in product(range(cell.seeds), cell.paths, cell.densities):
            run = Run(cell.data, path, density, cell.corrected, seed)
            yield from (Measurement(run, steps) for steps in cell.budgets)
            yield from (Measurement(run, last, solver) for solver in cell.solvers)
            if cell.guided:
                yield Measurement(run, last, guided=True)


Key = tuple[str, str, str, bool, int, str, bool]


def way_of(one: Measurement) -> Key:
    """What was measured, but for the seed."""
    r = one.run
    return (r.data, r.path, r.density, r.corrected, one.steps, one.solver, one.guided)


def way_key(way: Way) -> Key:
    """The same of a hypothesis' side."""
    return (way.data, way.path, way.density, way.corrected, way.steps, way.solver, way.guided)


def weak_run(run: Run) -> Run:
    """The weak model of a run's guidance: one serves all seeds."""
    return replace(run, seed=0, weak=True)


def data_config(study: StudyConfig, name: str) -> Experiment:
    """What all runs on a data set share, in OUTPUT/NAME: its latents, probes and networks."""
    changes = merge(study.study.data[name].changes, {"output": study.output / name})
    plain = study.model_dump(exclude={"study", "compare"})  # so that no result depends on what else is run
    return parse(Experiment, merge(plain, changes), f"study.data.{name}")


def schedule_file(study: StudyConfig, data: str, path: str) -> Path:
    """Where a path that data decide lies."""
    return study.output / data / "schedules" / f"{path}.json"


def schedule_name(study: StudyConfig, data: str, path: str) -> str:
    """A path as the library takes it: its name, or its file."""
    return str(schedule_file(study, data, path)) if path in LEARNED else path


def _budgets(study: StudyConfig, run: Run) -> set[int]:
    return {m.steps for m in measurements(study) if m.run == run}


def run_config(study: StudyConfig, run: Run) -> Experiment:
    """The config of a training run; its checkpoints at every budget of the design are kept."""
    config = data_config(study, run.data)
    budgets = _budgets(study, run) or {study.study.weak.steps}
    changes: dict[str, Any] = {"name": run.name, "steps": max(budgets)}
    changes |= {"schedule": schedule_name(study, run.data, run.path), "checkpoint_steps": sorted(budgets)}
    if run.corrected:
        changes |= {"local_times": {"density": run.density}, "draw": "balanced"}
    else:
        changes |= {"corrected": False, "time_distribution": run.density}
    weak = {"model": study.study.weak.model} if run.weak else {}
    changes = merge({"seed": run.seed, "train": changes}, weak)
    return parse(Experiment, merge(config.model_dump(), changes), f"run {run.name}")


def joint_config(study: StudyConfig, data: str) -> Experiment:
    """The joint-time network of a data set, trained as long as its longest run."""
    config = data_config(study, data)
    steps = max(m.steps for m in measurements(study) if m.run.data == data)
    times = {"times": "independent", "schedule": "synchronous", "local_times": {"density": "logit_normal"}}
    changes = {"train": times | {"name": JOINT, "steps": steps}}
    return parse(Experiment, merge(config.model_dump(), changes), f"the joint network of {data}")


def sample_config(study: StudyConfig, measurement: Measurement) -> Experiment:
    """The config of a measurement's samples. Runs of one seed share noise and labels, so that they can be paired."""
    run, settings = measurement.run, study.study
    config = run_config(study, run)
    checkpoint = checkpoint_path(config.output / "train" / run.name, measurement.steps)
    changes: dict[str, Any] = {"checkpoint": checkpoint, "name": measurement.name, "seed": run.seed}
    changes |= settings.solvers.get(measurement.solver, {})
    if measurement.guided:
        folder = checkpoint_path(config.output / "train" / weak_run(run).name, settings.weak.steps)
        changes["guidance"] = {"kind": "auto", "scale": settings.weak.scale, "weak": folder}
    return parse(Experiment, merge(config.model_dump(), {"sample": changes}), f"measurement {measurement.name}")


def check(study: StudyConfig) -> None:
    """Build the config of whatever may be run, so that a mistake shows now and not after hours. Raises UserError."""
    for name in study.study.data:
        data_config(study, name)
    for run in runs(ordinary := without_extra(study)):
        if run.seed == 0 and _budgets(ordinary, run) != _budgets(study, run):
            raise UserError(f"study.cells: {run.name} of {run.data} is also of an extra cell, with other budgets")
    for one in measurements(study):
        if one.run.seed == 0:
            sample_config(study, one)
        if one.run.path in LEARNED and one.run.data not in learning(study):
            raise UserError(f"study.data.{one.run.data}: {one.run.path} is learned there; set learn: true")


def _known(where: str, name: str, known: dict[str, Any]) -> None:
    if name not in known:
        raise ValueError(f"{where}: {name!r} is not one of {list(known)}")
