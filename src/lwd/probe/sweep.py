"""The one-dimensional search for lambda: the weakest value whose probe does not collapse (Section 3.5, Figure 2)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from pydantic import Field, NonNegativeInt, field_validator

from lwd.config import Config
from lwd.errors import UserError
from lwd.files import write_json
from lwd.probe.loop import CURVE_POINTS, Preview, ProbeConfig, run
from lwd.runtime.engine import Engine
from lwd.runtime.jobs import run_jobs
from lwd.runtime.run import write_run_files
from lwd.schedules import PolynomialCurve, Schedule
from lwd.schedules.collapse import distance_from_collapse


class SweepSettings(Config):
    """Which values of lambda are tried (the paper's) and what counts as collapsed."""

    kinetic_weights: tuple[float, ...] = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.10)
    collapsed_below: float = Field(default=0.1, ge=0, le=1)
    """A probe whose schedule's `distance_from_collapse` is smaller has collapsed (0: tau^(M+1), 1: tau)."""

    processes: NonNegativeInt = 0
    """How many probes run side by side; 0: one per core, or one where there is a GPU."""

    @field_validator("kinetic_weights")
    @classmethod
    def _increasing(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or list(values) != sorted(set(values)) or values[0] < 0:
            raise ValueError("must be increasing, not negative and not empty")
        return values


class SweepConfig(ProbeConfig):
    """Everything `sweep` reads."""

    sweep: SweepSettings = SweepSettings()


@dataclass(frozen=True)
class SweepRow:
    """One probe of the sweep: lambda, how far it stayed from collapse, and t(.25), t(.5), t(.75) by learned group."""

    kinetic_weight: float
    distance_from_collapse: float
    collapsed: bool
    curve: dict[str, list[float]]


def sweep(config: SweepConfig, preview: Preview | None = None) -> tuple[list[SweepRow], Schedule]:
    """A probe per lambda; returns the table and the schedule of the weakest lambda that did not collapse.

    Writes OUTPUT/sweep/lambda-*/ , OUTPUT/sweep/table.json and the chosen OUTPUT/schedule.json. Finished probes are
    found again. ``preview``, as of `run`, must be picklable. Raises UserError where every lambda collapses; says so
    where none does.
    """
    engine = Engine(config.compute)
    processes = config.sweep.processes if engine.world == 1 else 1
    jobs = [_Job(config, weight, preview) for weight in config.sweep.kinetic_weights]
    schedules = run_jobs(
        _probe, jobs, "sweep", config.probe.steps, processes, engine.is_main and config.compute.progress
    )
    rows = [_row(job.kinetic_weight, s, config.sweep.collapsed_below) for job, s in zip(jobs, schedules, strict=True)]
    stable = [i for i, row in enumerate(rows) if not row.collapsed]
    chosen = stable[0] if stable else None
    weights = config.sweep.kinetic_weights
    table = {
        "rows": [asdict(row) for row in rows],
        "collapsed_below": config.sweep.collapsed_below,
        "points": list(CURVE_POINTS),
        "chosen": None if chosen is None else weights[chosen],
    }
    if engine.is_main:
        write_json(config.output / "sweep" / "table.json", table)
        write_run_files(config, config.output / "sweep")
    if chosen is None:
        (config.output / "schedule.json").unlink(missing_ok=True)
        raise UserError(f"sweep: every lambda up to {weights[-1]:g} collapsed; add larger sweep.kinetic_weights")
    if chosen == 0:
        engine.say(f"sweep: no lambda collapsed, so a weaker one than {weights[0]:g} may be stable too")
    if engine.is_main:
        schedules[chosen].save(config.output / "schedule.json")
    engine.barrier()
    return rows, schedules[chosen]


@dataclass(frozen=True)
class _Job:
    config: SweepConfig
    kinetic_weight: float
    preview: Preview | None


def _probe(job: _Job) -> Schedule:
    probe = job.config.probe.model_copy(update={"kinetic_weight": job.kinetic_weight})
    one = job.config.model_copy(update={"probe": probe})
    return run(one, job.config.output / "sweep" / f"lambda-{job.kinetic_weight:g}", job.preview)


def _row(weight: float, schedule: Schedule, collapsed_below: float) -> SweepRow:
    distance = distance_from_collapse(schedule)
    if distance is None:
        raise UserError("sweep: the schedule has no learned group; groups needs at least two")
    points = torch.tensor(CURVE_POINTS)
    learned = {n: schedule[n] for n in schedule.names if isinstance(schedule[n], PolynomialCurve)}
    curve = {name: c(points)[0].detach().tolist() for name, c in learned.items()}
    return SweepRow(weight, distance, distance < collapsed_below, curve)
