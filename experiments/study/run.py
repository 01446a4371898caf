"""What the study runs, stage by stage: the library's own commands. Finished work is found again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from design import (
    Measurement,
    StudyConfig,
    encoder_config,
    encoders,
    measurements,
    run_config,
    runs,
    sample_config,
    weak_run,
)
from lwd.data.samples import RECIPE
from lwd.files import read_json, write_json
from lwd.runtime.checkpoint import read_state
from lwd.runtime.jobs import run_jobs
from lwd.runtime.progress import say
from lwd.schedules import Schedule
from lwd.stages import sample, semvae, train
from lwd.stages.encode.run import run as encode
from lwd.stages.experiment import Experiment
from measure import measure
from probes import check_probed
from semantics import explained
from shuffled import shuffle

ROW, EXPLAINED = "row.json", "explained.json"
Row = dict[str, Any]


def encode_all(study: StudyConfig) -> None:
    """The latents of every encoder; those that are made of another one come after it."""
    for later in (False, True):
        names = [name for name in encoders(study) if (study.study.encoders[name].base is not None) == later]
        jobs = [(study, name) for name in names]
        run_jobs(_encode, jobs, "encode", study.encode.encoder_steps, study.compare.processes, study.compute.progress)


def _encode(job: tuple[StudyConfig, str]) -> None:
    study, name = job
    config, settings = encoder_config(study, name), study.study.encoders[name]
    if settings.shuffled is not None:
        source = encoder_config(study, settings.shuffled).data_path
        shuffle(source, config.data_path, config.layout, config.leader, config.seed)
        return
    if settings.semvae_of is not None:
        features = config.data.model_copy(update={"path": encoder_config(study, settings.semvae_of).data_path})
        semvae.run(config.model_copy(update={"data": features}))
    encode(config)


def explain_all(study: StudyConfig) -> None:
    """How much of the texture the semantics of every encoder explain."""
    for name in encoders(study):
        _explain(study, name)


def semantics_rows(study: StudyConfig) -> list[Row]:
    """The rows that are there, one for an encoder."""
    files = [encoder_config(study, name).output / EXPLAINED for name in encoders(study)]
    return [dict(read_json(file)) for file in files if file.is_file()]


def _explain(study: StudyConfig, name: str) -> None:
    config = encoder_config(study, name)
    done, images, data = config.output / EXPLAINED, study.study.regression_images, config.data_fingerprint()
    asked = {"encoder": name, "data": data, "regression_images": images}
    if not done.is_file() or not read_json(done).items() >= asked.items():
        write_json(done, asked | explained(config.data_path, config.layout, config.leader, images))


def train_all(study: StudyConfig) -> None:
    """Every training, weak models first."""
    check_probed(study)
    todo = [run_config(study, run) for run in runs(study)]
    units = max(config.train.steps for config in todo)
    run_jobs(_train, todo, "train", units, study.compare.processes, study.compute.progress)


def _train(config: Experiment) -> None:
    train.run(config)


def measure_all(study: StudyConfig) -> None:
    """Sample and measure everything."""
    check_probed(study)
    todo = [(study, one) for one in measurements(study)]
    run_jobs(_measure, todo, "measure", study.sample.num, study.compare.processes, study.compute.progress)


def _measure(job: tuple[StudyConfig, Measurement]) -> None:
    study, measurement = job
    config = sample_config(study, measurement)
    folder = sample_folder(config)
    state = settings_hash(study, measurement, config)
    if (folder / ROW).is_file() and read_json(folder / ROW)["config"] == state:
        return
    (folder / ROW).unlink(missing_ok=True)  # `lwd sample` refuses folders with other files than samples
    afresh = config.compute.model_copy(update={"resume": False, "progress": False})
    sample.run(config.model_copy(update={"compute": afresh}))
    row = _settings(study, measurement, config) | {"config": state} | _hashes(config, folder) | measure(config, folder)
    write_json(folder / ROW, row)


def settings_hash(study: StudyConfig, measurement: Measurement, config: Experiment) -> str:
    """Of what a result of ``config`` depends on: data, schedule, and all settings of the run, of its weak model and of
    sampling that are not at their defaults (so that a new one with a default leaves old results valid)."""
    configs = [config, *([run_config(study, weak_run(study, measurement.run))] if measurement.guided else [])]
    parts = [each.model_dump_json(exclude={"compute"}, exclude_defaults=True) for each in configs]
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
    for measurement in measurements(study):
        config = sample_config(study, measurement)
        if (file := sample_folder(config) / ROW).is_file():
            row = dict(read_json(file))
            if row["config"] == settings_hash(study, measurement, config):
                valid.append(row)
            else:
                stale += 1
    if stale:
        say(f"{stale} results of other settings are left out", study.compute.progress)
    return valid


def _settings(study: StudyConfig, measurement: Measurement, config: Experiment) -> Row:
    """What was asked for."""
    run, s = measurement.run, config.sample
    cell = study.study.cells[run.cell]
    return {
        "cell": run.cell,
        "encoder": cell.encoder,
        "conditional": cell.conditional,
        "variant": run.variant,
        "seed": run.seed,
        "steps": measurement.steps,
        "solver": s.solver if s.solver == "dopri5" else f"{s.solver}{s.steps}",
        "exact": measurement.solver is None,
        "guided": measurement.guided,
        "guidance_scale": s.guidance.scale if measurement.guided else None,
        "model": config.model.name,
        "batch": config.train.batch,
        "lr": config.train.lr,
        "corrected": config.train.corrected,
        "time_distribution": config.train.time_distribution,
    }


def _hashes(config: Experiment, folder: Path) -> Row:
    """What tells this result from another: schedule, weights, data, and the training's whole recipe."""
    assert config.sample.checkpoint is not None
    recipe = read_json(folder / RECIPE)
    training = repr(sorted(read_state(config.sample.checkpoint).recipe.items()))
    wanted = ("schedule", "weights", "weak_weights", "data")
    return {key: recipe[key] for key in wanted} | {"recipe": hashlib.sha256(training.encode()).hexdigest()[:12]}
