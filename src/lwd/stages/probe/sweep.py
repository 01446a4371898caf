"""The one-dimensional search for lambda: the weakest value whose probes do not collapse (Section 3.5, Figure 2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    FiniteFloat,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from lwd.config import Config, Seed
from lwd.errors import UserError
from lwd.files import check_place, write_json
from lwd.maps import Table, learned_on
from lwd.maps.files import read_maps
from lwd.plots.sweep import Probed, save_sweep_curves
from lwd.probe.bisection import Bisection, Listed, Search, weakest_stable
from lwd.probe.outcome import NOTHING_MOVED, Outcome, SweepRow, nothing_moved, row, stable
from lwd.probe.search import WINDOWS, Found, Trial, find
from lwd.probe.stopping import EarlyStop
from lwd.probe.table import TABLE
from lwd.run import write_run_files
from lwd.runtime.jobs import run_jobs, workers
from lwd.runtime.processes import Processes
from lwd.schedules import Schedule
from lwd.schedules.collapse import Criterion, distance_from_collapse
from lwd.stages.probe.run import ProbeConfig, run
from lwd.stages.probe.table import Cost, as_json


class SweepSettings(Config):
    """Which values of lambda are tried (the paper's), what counts as collapsed, and when a probe may end early."""

    method: Literal["probes", "map"] = "probes"
    """probes: the paper's, a network is trained at each lambda; map: Algorithm 1 is followed on the map that `lwd map`
    left in OUTPUT/map, in seconds."""

    kinetic_weights: tuple[FiniteFloat, ...] | Literal["auto"] = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.10)
    """auto: bisection on a log scale, see `Bisection`."""
    low: PositiveFloat = 0.01
    """Where auto begins to look for the weakest stable lambda,"""
    high: PositiveFloat = 0.1
    """and up to where."""
    resolution: float = Field(default=1.25, ge=1.05, allow_inf_nan=False)
    """Of auto: the largest ratio between the lambda that is found and the next weaker one, which collapsed."""
    expansions: NonNegativeInt = Field(default=3, le=10)
    """Of auto: how often, fourfold each time, the search goes beyond low or high where both say the same."""
    seeds: tuple[Seed, ...] = ()
    """A lambda is stable if the probes of all seeds are; the schedule is the first one's. Empty: the experiment's."""
    collapsed_below: float = Field(default=0.1, ge=0, le=1)
    """A curve nearer than this to a collapsed one counts as collapsed."""
    mass_above: float = Field(default=0.5, ge=0, le=1)
    """A curve has collapsed where its distance from collapse is below the one (0: tau^(M+1), 1: tau) and the mass of
    its mixture on a_M above the other; see `lwd.schedules.collapse`."""
    early_stop: bool = True
    """End collapsed and settled probes early; those of the chosen lambda run to their full length all the same."""
    window: PositiveInt | None = None
    """Steps between two looks, for so many of which a probe must be collapsed or settled; None: a tenth of them."""
    settled_within: NonNegativeFloat = 0.005
    """The most that the averaged curve of a settled probe moves in a window."""
    processes: NonNegativeInt = 0
    """How many probes run side by side; 0: one per core, or one per GPU."""

    @field_validator("kinetic_weights", mode="before")
    @classmethod
    def _one_word(cls, values: Any) -> Any:
        if isinstance(values, str) and values != "auto":
            raise ValueError(f"must be auto or a list of numbers, not {values!r}")
        return values

    @field_validator("kinetic_weights")
    @classmethod
    def _increasing(cls, values: tuple[float, ...] | str) -> tuple[float, ...] | str:
        if isinstance(values, tuple) and (not values or list(values) != sorted(set(values)) or values[0] < 0):
            raise ValueError("must be increasing, not negative and not empty")
        if isinstance(values, tuple) and len({f"{value:g}" for value in values}) < len(values):
            raise ValueError("two are equal to six digits, by which their folders are named")
        return values

    @model_validator(mode="after")
    def _fits(self) -> SweepSettings:
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} repeats itself")
        return self

    @property
    def criterion(self) -> Criterion:
        """Of collapse."""
        return Criterion(self.collapsed_below, self.mass_above)

    @property
    def search(self) -> Search:
        """What is tried."""
        if isinstance(self.kinetic_weights, str):
            return Bisection(self.low, self.high, self.resolution, self.expansions)
        return Listed(self.kinetic_weights)


class SweepConfig(ProbeConfig):
    """Everything `sweep` reads."""

    sweep: SweepSettings = SweepSettings()

    @property
    def sweep_seeds(self) -> tuple[int, ...]:
        """The seeds of each lambda's probes, at least one."""
        return self.sweep.seeds or (self.seed,)

    def early_stop(self) -> EarlyStop | None:
        """When a probe of the sweep ends early."""
        s, probe = self.sweep, self.probe
        window = s.window or max(1, probe.steps // WINDOWS)
        return EarlyStop(window, s.settled_within, s.criterion) if s.early_stop else None


@dataclass(frozen=True)
class _Job:
    """One probe of the sweep."""

    config: SweepConfig
    trial: Trial

    @property
    def folder(self) -> Path:
        """Named after lambda, and the seed where that is not the experiment's."""
        seed = "" if self.trial.seed == self.config.seed else f"-seed{self.trial.seed}"
        return self.config.output / "sweep" / f"lambda-{self.trial.kinetic_weight:g}{seed}"


def sweep(config: SweepConfig, main_flops: int | None = None) -> tuple[list[SweepRow], Schedule]:
    """Probes of one lambda after another; returns a row for each and the schedule of the weakest stable lambda.

    Stable: no probe of any seed has collapsed, nor any of a stronger lambda. The chosen lambda's probes run to their
    full length, and must be stable there, too. ``main_flops``: what the main run takes, for the share in the table.

    Writes OUTPUT/sweep/lambda-*/ , OUTPUT/sweep/table.json, curves.png and the chosen OUTPUT/schedule.json. Finished
    probes are found again. Raises UserError where the strongest lambda collapses, or under auto no probe has
    moved; says so where none collapses.
    """
    processes = Processes(config.compute)
    if len(config.groups) == 1:
        raise UserError("sweep: the schedule has no learned group; groups needs at least two")
    if processes.is_main:
        for name in ("schedule.json", "sweep/table.json", "sweep/curves.png"):
            check_place(config.output / name)
    found = _find(config, processes)
    chosen = weakest_stable(stable(found.values()))
    rows = [row(outcome) for _, outcome in sorted(found.items())]
    planned = 0 if config.sweep.method == "map" else len(rows) * config.probe.steps
    cost = Cost(sum(r.steps for r in rows), planned, _step_flops(config), main_flops)
    if processes.is_main:
        write_json(config.output / "sweep" / TABLE, as_json(found.values(), config.sweep.criterion, chosen, cost))
        write_run_files(config, config.output / "sweep")
    still = nothing_moved(found.values())
    lesson = NOTHING_MOVED.format(steps=config.probe.steps, rho_lr=config.probe.rho_lr)
    if chosen is None or (still and config.sweep.kinetic_weights == "auto"):
        if processes.is_main:
            (config.output / "schedule.json").unlink(missing_ok=True)
        why = f"sweep: {lesson}" if chosen else _all_collapsed(config, max(r.kinetic_weight for r in rows))
        raise UserError(why)
    if still:
        processes.say(f"sweep: {lesson}")
    if not any(r.collapsed for r in rows):
        processes.say(f"sweep: no lambda collapsed, so a weaker one than {chosen:g} may be stable too")
    seed = config.seed if config.sweep.method == "map" else config.sweep_seeds[0]
    schedule = found[chosen, seed].schedule
    if processes.is_main:
        schedule.save(config.output / "schedule.json")
    processes.barrier()
    if processes.is_main:
        probes = [_probed(outcome, chosen) for _, outcome in sorted(found.items())]
        save_sweep_curves(config.output / "sweep" / "curves.png", probes, config.sweep.criterion.distance)
    return rows, schedule


def _find(config: SweepConfig, processes: Processes) -> Found:
    """Every probe of the sweep, several side by side where there is one process."""
    if config.sweep.method == "map":
        wanted = {"layout": config.layout.to_list(), "leader": config.leader, "data": config.data_fingerprint()}
        table = read_maps(config.output / "map", wanted)["train"].table()
        return find(
            config.sweep.search, lambda trials: _on_map(config, table, trials), (config.seed,), say=processes.say
        )
    side_by_side = workers(config.sweep.processes) if processes.world == 1 else 1

    def run_trials(trials: Sequence[Trial]) -> Iterable[Outcome]:
        jobs = [_Job(config, trial) for trial in trials]
        return run_jobs(_probe, jobs, "sweep", config.probe.steps, side_by_side, processes.shows, processes.limit)

    return find(config.sweep.search, run_trials, config.sweep_seeds, side_by_side, processes.say)


def _probe(job: _Job) -> Outcome:
    config, trial = job.config, job.trial
    probe = config.probe.model_copy(update={"kinetic_weight": trial.kinetic_weight})
    changes: dict[str, Any] = {"probe": probe, "seed": trial.seed}
    if trial.full:  # it goes on
        changes["compute"] = config.compute.model_copy(update={"resume": config.compute.resume or True})
    schedule = run(config.model_copy(update=changes), job.folder, None if trial.full else config.early_stop())
    return Outcome.of(trial.kinetic_weight, trial.seed, schedule, job.folder.name, config.sweep.criterion)


def _on_map(config: SweepConfig, table: Table, trials: Sequence[Trial]) -> Iterable[Outcome]:
    """What Algorithm 1 comes to on the map at each trial's lambda; it takes no steps of a network."""
    probe = config.probe
    for trial in trials:
        schedule = learned_on(
            table,
            trial.kinetic_weight,
            family=probe.family,
            curve=probe.curve_settings,
            **probe.objective(config.layout.names),
        )
        schedule.provenance = {
            "layout": config.layout.to_list(),
            "lambda": trial.kinetic_weight,
            "method": "map",
            "jacobian": probe.jacobian,
            "reduction": probe.reduction,
            "steps": 0,
            "seed": trial.seed,
            "data": config.data_fingerprint(),
            "distance_from_collapse": distance_from_collapse(schedule),
        }
        folder = f"map-lambda-{trial.kinetic_weight:g}"
        schedule.save(config.output / "sweep" / folder / "schedule.json")
        yield Outcome.of(trial.kinetic_weight, trial.seed, schedule, folder, config.sweep.criterion)


def _probed(outcome: Outcome, chosen: float) -> Probed:
    """An outcome as it is drawn."""
    collapse, weight = outcome.collapse, outcome.kinetic_weight
    return Probed(weight, collapse.distance, collapse.collapsed, weight == chosen, outcome.schedule)


def _step_flops(config: SweepConfig) -> int:
    """Operations of one probe step."""
    shape = config.shards("train", features=False).shape
    return config.probe.batch * (config.model.training_flops(config.layout, shape) or 0)


def _all_collapsed(config: SweepConfig, strongest: float) -> str:
    remedy = "raise sweep.high" if config.sweep.kinetic_weights == "auto" else "add larger sweep.kinetic_weights"
    if config.probe.kinetic_trains == "both":
        remedy += " (or probe.kinetic_trains=schedule: a strong one collapses too)"
    return f"sweep: every lambda up to {strongest:g} collapsed; {remedy}"
