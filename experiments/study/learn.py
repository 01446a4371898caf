"""The paths that data decide: by Algorithm 1's probes, by the exact Jacobian, on the map of a joint-time network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from design import (
    ALGORITHM_1,
    EXACT,
    LEARNED,
    MAP_LOSS,
    MAP_RULE,
    StudyConfig,
    data_config,
    joint_config,
    learning,
    schedule_file,
    schedule_name,
)
from lwd.files import read_json, write_json
from lwd.probe.table import read_table
from lwd.runtime.jobs import run_jobs
from lwd.schedules import Schedule
from lwd.schedules.choice import ScheduleChoice
from lwd.schedules.collapse import assess
from lwd.stages import map as maps
from lwd.stages import probe, score, train
from lwd.stages.experiment import Experiment
from lwd.stages.score.run import RULE, SPLINE, file_names


def learn(study: StudyConfig) -> None:
    """Find the paths of every data set; what is there already is found again."""
    jobs = [(study, name, part) for name in learning(study) for part in (by_probes, on_the_map)]
    run_jobs(_learn, jobs, "learn schedules", study.probe.steps, study.compare.processes, study.compute.progress)


def _learn(job: tuple[StudyConfig, str, Any]) -> None:
    study, name, part = job
    last = {by_probes: EXACT, on_the_map: MAP_LOSS}[part]  # what it writes at its end
    if schedule_file(study, name, last).is_file():
        return
    started, note = time.process_time(), schedule_file(study, name, f"{part.__name__}-cost")
    try:
        part(study, name)
    finally:  # also of a piece that was asked to stop
        before = float(read_json(note)["processor_seconds"]) if note.is_file() else 0.0
        write_json(note, {"processor_seconds": round(before + time.process_time() - started, 1)})


def by_probes(study: StudyConfig, name: str) -> None:
    """`lwd sweep`, and one probe with the exact Jacobian at the lambda that it chose."""
    config = data_config(study, name)
    if not schedule_file(study, name, ALGORITHM_1).is_file():
        probe.sweep(config, train.main_flops(config))
        Schedule.load(config.output / "schedule.json").save(schedule_file(study, name, ALGORITHM_1))
    weight = read_table(config.output / "sweep" / "table.json").chosen
    settings = config.probe.model_copy(update={"kinetic_weight": weight, "jacobian": "exact"})
    folder = config.output / "probes" / EXACT
    probe.run(config.model_copy(update={"probe": settings}), folder)
    Schedule.load(folder / "schedule.json").save(schedule_file(study, name, EXACT))


def on_the_map(study: StudyConfig, name: str) -> None:
    """Score the named schedules on the joint network: the map's own two are among them."""
    joint = joint_network(study, name)
    score.run(joint.model_copy(update={"score": joint.score.model_copy(update={"samples": 0})}))
    record = read_json(joint.output / "score" / "score.json")
    files = dict(zip(names := [row["name"] for row in record["rows"]], file_names(names), strict=True))
    for found, path in ((RULE, MAP_RULE), (SPLINE, MAP_LOSS)):
        if found in files:  # where every lambda collapses on the map, its rule has none
            Schedule.load(joint.output / "score" / files[found]).save(schedule_file(study, name, path))


def joint_network(study: StudyConfig, name: str) -> Experiment:
    """Train the joint network and measure its map; returns its config."""
    joint = joint_config(study, name)
    train.run(joint)
    maps.run(joint)
    return joint


def score_all(study: StudyConfig) -> None:
    """Score every path of a data set on its joint network, its own samples under each path included."""
    jobs = [(study, name) for name in learning(study)]
    run_jobs(_score, jobs, "score", 1, study.compare.processes, study.compute.progress)


def _score(job: tuple[StudyConfig, str]) -> None:
    study, name = job
    wanted = {_hash(study, name, path) for path in paths(study, name)} - {None}
    if not wanted <= _scored(study, name).keys():
        joint = joint_network(study, name)  # trained now, on a machine that has only its results
        choices = tuple(path_choice(study, name, path) for path in paths(study, name))
        score.run(joint.model_copy(update={"score": joint.score.model_copy(update={"schedules": choices})}))
        write_json(scores_file(study, name), read_json(data_config(study, name).output / "score" / "score.json"))


def scores_file(study: StudyConfig, name: str) -> Path:
    """The scores of all paths of a data set."""
    return data_config(study, name).output / "scores.json"


def _scored(study: StudyConfig, name: str) -> dict[str | None, dict[str, Any]]:
    """What is known of the paths of a data set, by the schedule's hash."""
    file = scores_file(study, name)
    return {row["schedule"]: row for row in read_json(file)["rows"]} if file.is_file() else {}


def path_choice(study: StudyConfig, name: str, path: str) -> ScheduleChoice:
    """A path's schedule, as the library takes it."""
    return ScheduleChoice.model_validate(schedule_name(study, name, path))


def paths(study: StudyConfig, name: str) -> list[str]:
    """The paths that are trained on a data set, in the design's order."""
    return list(dict.fromkeys(p for cell in study.study.cells.values() if cell.data == name for p in cell.paths))


def probe_rows(study: StudyConfig) -> list[dict[str, Any]]:
    """A row for every lambda that the probes tried, and for every learned path: where its curve ended."""
    rows = []
    for name in learning(study):
        config = data_config(study, name)
        table = config.output / "sweep" / "table.json"
        for one in read_table(table).rows if table.is_file() else ():
            found = {"lambda": one.kinetic_weight, "distance": one.distance_from_collapse, "collapsed": one.collapsed}
            rows.append({"data": name, "path": None, **found, "steps": one.steps})
        for path in LEARNED:
            file = schedule_file(study, name, path)
            if file.is_file():
                schedule = Schedule.load(file)
                collapse = assess(schedule, study.sweep.criterion)
                distance = None if collapse is None else collapse.distance
                facts = {"lambda": schedule.provenance.get("lambda"), "distance": distance}
                rows.append({"data": name, "path": path, **facts, "schedule": schedule.hash()})
    return rows


def score_rows(study: StudyConfig) -> list[dict[str, Any]]:
    """A row for every path that was scored: the joint network's numbers of it."""
    rows = []
    for name in learning(study):
        scored = _scored(study, name)
        for path in paths(study, name):
            if (row := scored.get(_hash(study, name, path))) is not None:
                distance = row["distance"]
                rows.append(
                    {
                        "data": name,
                        "path": path,
                        "flow": row["flow"],
                        "kinetic": row["kinetic"],
                        "loss": row["loss"]["value"],
                        "nats": row["nats"]["value"],
                        "distance": None if distance is None else distance["value"],
                    }
                )
    return rows


def _hash(study: StudyConfig, name: str, path: str) -> str | None:
    file, config = schedule_file(study, name, path), data_config(study, name)
    if path in LEARNED and not file.is_file():
        return None
    return path_choice(study, name, path).make(config.layout, config.leader, file, "").hash()


def costs(study: StudyConfig) -> dict[str, dict[str, float]]:
    """Processor seconds by data set: of the probes, and of the joint network with its map."""
    found = {}
    for name in study.study.data:
        notes = {part.__name__: schedule_file(study, name, f"{part.__name__}-cost") for part in (by_probes, on_the_map)}
        found[name] = {part: read_json(note)["processor_seconds"] for part, note in notes.items() if note.is_file()}
    return found
