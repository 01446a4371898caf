"""`lwd demo`: the stages in order, on data that a package ships, and a page that shows what came out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lwd.config import SETTINGS, dump, load
from lwd.data.evaluation import RESULT
from lwd.errors import UserError
from lwd.files import check_place, read_text, write_json
from lwd.runtime.checkpoint import checkpoint_path
from lwd.runtime.jobs import run_jobs
from lwd.runtime.preemption import TimeLimit
from lwd.runtime.progress import say
from lwd.stages import evaluate, probe, report, sample, train
from lwd.stages.encode.run import run as encode
from lwd.stages.experiment import Experiment
from lwd.stages.report.comparison import RESULTS, Result
from lwd.stages.report.page import PAGE


@dataclass(frozen=True)
class Job:
    """One training run of the comparison and everything that is measured on it."""

    experiment: Experiment
    variant: str
    seed: int


def run(config: Path, overrides: Iterable[str] = ()) -> Path:
    """Encode, sweep, train, sample, evaluate, report; returns the page. What is finished already is found again."""
    experiment = load(Experiment, config, overrides)
    if not experiment.compare.variants or not experiment.compare.budgets or not experiment.compare.seeds:
        raise UserError(f"{config}: compare needs at least one variant, one budget and one seed")
    for name in (RESULTS, PAGE):
        check_place(experiment.output / name)
    show = experiment.compute.progress
    say("[1/4] encode: real images to latents", show)
    encode(experiment)
    say("[2/4] sweep: learn a schedule for each lambda, keep the weakest that does not collapse", show)
    probe.sweep(experiment, train.main_flops(experiment))
    say("[3/4] compare: train, sample and evaluate each schedule", show)
    jobs = [Job(experiment, v, s) for s in experiment.compare.seeds for v in experiment.compare.variants]
    looked_at = 2 * len(experiment.compare.budgets) * experiment.sample.num  # when sampled, and when evaluated
    units = max(experiment.compare.budgets) + looked_at
    limit = TimeLimit(experiment.compute.time_limit)
    rows = run_jobs(compare_one, jobs, "compare", units, experiment.compare.processes, show, limit)
    write_json(experiment.output / RESULTS, [row.model_dump() for group in rows for row in group])
    say("[4/4] report", show)
    return report.write_page(experiment)


def compare_one(job: Job) -> list[Result]:
    """Train one variant with one seed; sample and evaluate it at every budget."""
    name = f"{job.variant}-seed{job.seed}"
    budgets = job.experiment.compare.budgets
    settings = job.experiment.variant(job.variant)
    settings = settings.model_copy(update={"name": name, "steps": max(budgets), "checkpoint_steps": budgets})
    one = job.experiment.model_copy(update={"seed": job.seed, "train": settings})
    train.run(one)
    return [_measure(one, job, name, steps) for steps in budgets]


def _measure(one: Experiment, job: Job, name: str, steps: int) -> Result:
    """Sample and evaluate one checkpoint, unless that was done under the same config."""
    checkpoint = checkpoint_path(one.output / "train" / name, steps)
    sampling = one.sample.model_copy(update={"checkpoint": checkpoint, "name": f"{name}-{steps}"})
    folder = one.output / "samples" / f"{name}-{steps}"
    afresh = one.compute.model_copy(update={"resume": False})
    changes = {"sample": sampling, "evaluate": evaluate.EvaluateSettings(samples=folder), "compute": afresh}
    one = one.model_copy(update=changes)
    done = folder / RESULT
    if not (done.is_file() and read_text(folder / SETTINGS) == dump(one)):
        sample.run(one)
        evaluate.run(one)
    found = evaluate.Evaluation.read(done)
    distance, accuracy = found.metrics["frechet"], found.metrics.get("accuracy")
    measured = {"frechet": distance, "accuracy": accuracy, "nfe": found.samples["nfe"]}
    return Result(variant=job.variant, seed=job.seed, steps=steps, **measured)
