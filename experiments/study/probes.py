"""The schedules of every cell: the search for lambda, and the further probes that say how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from design import COLLAPSED, EXACT, STOP, StudyConfig, cell_config, schedule_file
from lwd.errors import UserError
from lwd.files import read_json
from lwd.runtime.jobs import run_jobs
from lwd.runtime.progress import say
from lwd.schedules import Schedule
from lwd.schedules.collapse import assess
from lwd.stages import probe, train
from lwd.stages.experiment import Experiment

NOWHERE, ALL = -40.0, 1.0
"""rho of a coefficient that is nothing (softplus(-40) = 4e-18) and of one that is all."""


@dataclass(frozen=True)
class Extra:
    """A further probe: what it changes of ``probe``, and its seed."""

    config: Experiment
    name: str
    seed: int
    changes: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where it runs."""
        return self.config.output / "probes" / self.name


def learn(study: StudyConfig) -> None:
    """Find lambda in every cell, run the further probes, and write each cell's schedules."""
    show, processes = study.compute.progress, study.compare.processes
    configs = {name: _searching(study, name) for name in study.study.cells}
    chosen = dict(
        zip(
            configs,
            run_jobs(search, list(configs.values()), "search for lambda", 4 * study.probe.steps, processes, show),
            strict=True,
        )
    )
    for name, weight in chosen.items():
        say(f"{name}: " + ("every lambda collapsed" if weight is None else f"lambda {weight:g}"), show)
    extra = [one for name in configs for one in extras(study, name, chosen[name])]
    run_jobs(run_extra, extra, "further probes", study.probe.steps, processes, show)
    for name, config in configs.items():
        collapsed(config).save(schedule_file(study, name, COLLAPSED))
        stronger = [f"stronger-{by:g}" for by in study.study.cells[name].stronger]
        found = {STOP: config.output / "schedule.json"}
        found |= {kind: config.output / "probes" / kind / "schedule.json" for kind in (EXACT, *stronger)}
        for kind, path in found.items():
            target = schedule_file(study, name, kind)
            if chosen[name] is None:
                target.unlink(missing_ok=True)
            else:
                Schedule.load(path).save(target)


def check_probed(study: StudyConfig) -> None:
    """Raises UserError for a cell that has not been probed: which variants it has is not known before."""
    for cell in study.study.cells:
        if not schedule_file(study, cell, COLLAPSED).is_file():
            raise UserError(f"cell {cell}: no schedules yet; the stage probe comes first")


def _searching(study: StudyConfig, cell: str) -> Experiment:
    config = cell_config(study, cell)
    whole = config.train.model_copy(update={"steps": max(study.study.cells[cell].budgets)})
    return config.model_copy(update={"train": whole})


def search(config: Experiment) -> float | None:
    """`lwd sweep`; the lambda it chose, None where every one collapsed (then the sweep says so with an error)."""
    table = config.output / "sweep" / "table.json"
    table.unlink(missing_ok=True)
    try:
        probe.sweep(config, train.main_flops(config))
    except UserError:
        if not table.is_file():
            raise
    weight: float | None = read_json(table)["chosen"]
    return weight


def extras(study: StudyConfig, cell: str, chosen: float | None) -> list[Extra]:
    """The further probes of a cell, all at the lambda that was chosen unless they say otherwise."""
    if chosen is None:
        return []
    config, settings = cell_config(study, cell), study.study.cells[cell]
    at = {"kinetic_weight": chosen}
    lengths = {f"steps-{n}": at | {"steps": n, "burn_in": n // 2} for n in settings.probe_lengths}
    weaker = {f"weaker-{by:g}": {"kinetic_weight": chosen / by} for by in settings.weaker}
    stronger = {f"stronger-{by:g}": {"kinetic_weight": chosen * by} for by in settings.stronger}
    exact = {EXACT: at} | {f"{EXACT}-{name}": each for name, each in list(weaker.items())[-1:]}
    changes = {name: each | {"jacobian": EXACT} for name, each in exact.items()} | lengths | weaker | stronger
    found = [Extra(config, name, config.seed, each) for name, each in changes.items()]
    return found + [Extra(config, f"seed-{seed}", seed, at) for seed in settings.probe_seeds]


def run_extra(extra: Extra) -> None:
    """One further probe, to its full length."""
    settings = extra.config.probe.model_copy(update=dict(extra.changes))
    probe.run(extra.config.model_copy(update={"probe": settings, "seed": extra.seed}), extra.folder)


def collapsed(config: Experiment) -> Schedule:
    """The extremal schedule: t = tau^(M+1) in every group but the leader."""
    schedule = Schedule.learnable(config.layout.names, config.leader, degree=config.probe.degree)
    rho = torch.tensor([NOWHERE] * config.probe.degree + [ALL])
    return schedule.with_parameters(dict.fromkeys(schedule.learned, rho))


def probe_rows(study: StudyConfig) -> list[dict[str, Any]]:
    """A row for every finished probe: settings, seed, where its curve ended, and rho of the learned group."""
    rows = []
    for cell in study.study.cells:
        config = cell_config(study, cell)
        table = config.output / "sweep" / "table.json"
        chosen = read_json(table)["chosen"] if table.is_file() else None
        files = {f"sweep/{path.parent.name}": path for path in config.output.glob("sweep/*/schedule.json")}
        files |= {one.name: one.folder / "schedule.json" for one in extras(study, cell, chosen)}
        for name, path in sorted(files.items()):
            if path.is_file():
                rows.append(_row(study, cell, name, Schedule.load(path), chosen))
    return rows


def _row(study: StudyConfig, cell: str, name: str, schedule: Schedule, chosen: float | None) -> dict[str, Any]:
    found = assess(schedule, study.sweep.criterion)
    assert found is not None, "the study has a learned group"
    facts = schedule.provenance
    return {
        "cell": cell,
        "encoder": study.study.cells[cell].encoder,
        "conditional": study.study.cells[cell].conditional,
        "probe": name,
        **{key: facts[key] for key in ("lambda", "jacobian", "seed", "steps", "burn_in", "batch", "model", "data")},
        "stopped": facts.get("stopped"),
        "chosen": facts["lambda"] == chosen and name.startswith("sweep/"),
        "collapsed": found.collapsed or facts.get("stopped") == "collapsed",
        "distance_from_collapse": found.distance,
        "mass": found.mass,
        "rho": {g: rho.tolist() for g, rho in schedule.parameter_vectors().items()},
        "schedule": schedule.hash(),
    }
