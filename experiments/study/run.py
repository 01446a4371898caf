"""What the study runs, stage by stage: the library's own commands. Finished work is found again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from design import (
    LEARNED,
    Measurement,
    Run,
    StudyConfig,
    data_config,
    measurements,
    run_config,
    runs,
    sample_config,
    schedule_file,
    weak_run,
)
from lwd.data.samples import RECIPE
from lwd.errors import UserError
from lwd.files import read_json, write_json
from lwd.runtime.jobs import run_jobs
from lwd.runtime.progress import say
from lwd.schedules import Schedule
from lwd.stages import sample, train
from lwd.stages.encode.run import run as encode
from lwd.stages.experiment import Experiment
from measure import measure
from semantics import explained
from shuffled import shuffle

ROW, EXPLAINED = "row.json", "explained.json"
Row = dict[str, Any]


def encode_all(study: StudyConfig) -> None:
    """The latents of every data set; those that are made of another one come after it."""
    data = study.study.data
    for later in (False, True):
        jobs = [(study, name) for name in data if (data[name].shuffled is not None) == later]
        run_jobs(_encode, jobs, "encode", study.encode.encoder_steps, study.compare.processes, study.compute.progress)


def _encode(job: tuple[StudyConfig, str]) -> None:
    study, name = job
    config, source = data_config(study, name), study.study.data[name].shuffled
    if source is not None:
        shuffle(data_config(study, source).data_path, config.data_path, config.layout, config.leader, config.seed)
    else:
        encode(config)


def explain_all(study: StudyConfig) -> None:
    """How much of the other groups the leader of every data set explains."""
    for name in study.study.data:
        config = data_config(study, name)
        done, images = config.output / EXPLAINED, study.study.regression_images
        asked = {"data": name, "fingerprint": config.data_fingerprint(), "regression_images": images}
        if not done.is_file() or not read_json(done).items() >= asked.items():
            write_json(done, asked | explained(config.data_path, config.layout, config.leader, images))


def semantics_rows(study: StudyConfig) -> list[Row]:
    """The rows that are there, one for a data set."""
    files = [data_config(study, name).output / EXPLAINED for name in study.study.data]
    return [dict(read_json(file)) for file in files if file.is_file()]


def train_and_measure(study: StudyConfig) -> None:
    """Every training with its measurements, seed by seed: what is finished is a study of fewer seeds."""
    _check_learned(study)
    guided = [one for one in measurements(study) if one.guided and not _done(study, one)]
    weak = [run_config(study, run) for run in dict.fromkeys(weak_run(one.run) for one in guided)]
    run_jobs(_train, weak, "weak models", study.study.weak.steps, study.compare.processes, study.compute.progress)
    todo = {run: missing for run in runs(study) if (missing := _missing(study, run))}
    jobs = [(study, run) for run in todo]
    units = round(sum(_work(study, run, missing) for run, missing in todo.items()) / max(1, len(todo)))
    run_jobs(_train_and_measure, jobs, "train and measure", units, study.compare.processes, study.compute.progress)


def _check_learned(study: StudyConfig) -> None:
    for run in runs(study):
        if run.path in LEARNED and not (file := schedule_file(study, run.data, run.path)).is_file():
            raise UserError(f"{file} is missing; `--only learn` writes it (none where every lambda collapses)")


def _train(config: Experiment) -> None:
    train.run(config)


def _train_and_measure(job: tuple[StudyConfig, Run]) -> None:
    study, run = job
    config = run_config(study, run)
    train.run(config.model_copy(update={"compute": config.compute.model_copy(update={"progress": False})}))
    for one in _missing(study, run):
        _measure(study, one)


def _work(study: StudyConfig, run: Run, missing: Sequence[Measurement]) -> int:
    """As the bars count it: steps and samples."""
    return run_config(study, run).train.steps + study.sample.num * len(missing)


def _missing(study: StudyConfig, run: Run) -> list[Measurement]:
    """What is still to be measured of a run."""
    return [one for one in measurements(study) if one.run == run and not _done(study, one)]


def _done(study: StudyConfig, one: Measurement) -> bool:
    config = sample_config(study, one)
    file = sample_folder(config) / ROW
    return file.is_file() and read_json(file)["config"] == settings_hash(study, one, config)


def _measure(study: StudyConfig, one: Measurement) -> None:
    config = sample_config(study, one)
    folder, state = sample_folder(config), settings_hash(study, one, config)
    (folder / ROW).unlink(missing_ok=True)  # `lwd sample` refuses folders with other files than samples
    afresh = config.compute.model_copy(update={"resume": False, "progress": False})
    sample.run(config.model_copy(update={"compute": afresh}))
    row = _settings(one, config) | {"config": state} | _hashes(folder) | measure(config, folder)
    write_json(folder / ROW, row)


def settings_hash(study: StudyConfig, one: Measurement, config: Experiment) -> str:
    """Of what a result of ``config`` depends on: data, schedule, and all settings of the run, of its weak model and of
    sampling that are not at their defaults (so that a new one with a default leaves old results valid)."""
    configs = [config, *([run_config(study, weak_run(one.run))] if one.guided else [])]
    parts = [each.model_dump_json(exclude={"compute"}, exclude_defaults=True) for each in configs]
    parts = [part.replace(str(study.output), "OUTPUT") for part in parts]  # wherever runs lie
    path = config.train.schedule.path
    parts += [str(config.data_fingerprint()), Schedule.load(path).hash() if path else ""]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def sample_folder(config: Experiment) -> Path:
    """Where a measurement's samples lie."""
    assert config.sample.name is not None
    return config.output / "samples" / config.sample.name


def measured_rows(study: StudyConfig) -> list[Row]:
    """The rows that are there and were made under these settings, in the design's order."""
    valid, stale = list[Row](), 0
    for one in measurements(study):
        config = sample_config(study, one)
        if (file := sample_folder(config) / ROW).is_file():
            row = dict(read_json(file))
            if row["config"] == settings_hash(study, one, config):
                valid.append(row)
            else:
                stale += 1
    if stale:
        say(f"{stale} results of other settings are left out", study.compute.progress)
    return valid


def keep_rows(study: StudyConfig, rows: Sequence[Row]) -> None:
    """Put rows that were measured elsewhere under the same settings where they are found again."""
    of = {row["config"]: row for row in rows}
    for one in measurements(study):
        if one.run.path in LEARNED and not schedule_file(study, one.run.data, one.run.path).is_file():
            continue
        config = sample_config(study, one)
        row, file = of.get(settings_hash(study, one, config)), sample_folder(config) / ROW
        if row is not None and not file.is_file():
            write_json(file, row)


def _settings(one: Measurement, config: Experiment) -> Row:
    """What was asked for."""
    run = one.run
    return {
        "data": run.data,
        "path": run.path,
        "density": run.density,
        "corrected": run.corrected,
        "seed": run.seed,
        "steps": one.steps,
        "solver": one.solver,
        "guided": one.guided,
        "model": config.model.name,
        "batch": config.train.batch,
    }


def _hashes(folder: Path) -> Row:
    """What tells this result from another: schedule, weights, data."""
    recipe = read_json(folder / RECIPE)
    return {key: recipe[key] for key in ("schedule", "weights", "weak_weights")} | {"latents": recipe["data"]}
