"""`lwd score`: the paper's objective, held-out nats and loss, and samples' distances of schedules, in OUTPUT/score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.files import write_json
from lwd.flow import Jacobian
from lwd.maps import Line, Map, Table, learned_on, line, measure_line
from lwd.maps.files import Split, read_maps
from lwd.maps.score import LineScore, best_line, on_map, score_lines
from lwd.models.pretrained import fingerprint
from lwd.probe.bisection import weakest_stable
from lwd.run import write_run_files
from lwd.runtime.processes import Processes
from lwd.runtime.progress import progress_bar
from lwd.schedules import Schedule
from lwd.schedules.collapse import Collapse, assess
from lwd.schedules.distance import POINTS
from lwd.stages.experiment import Experiment
from lwd.stages.map import open_network
from lwd.stages.map.run import measured_checkpoint, noise, velocity_of
from lwd.stages.score.picture import draw
from lwd.stages.score.samples import Distance, distances

SPLINE, RULE = "spline", "paper"
"""What is scored beside the schedules that are asked for, both chosen on the map of the training images and scored on
held-out ones: the spline whose L is least, and the schedule of the weakest lambda of ``score.kinetic_weights`` that
does not collapse."""


@dataclass(frozen=True)
class Row:
    """One schedule's scores."""

    name: str
    schedule: Schedule
    paper: dict[str, float]
    lines: LineScore
    distance: Distance | None = None


@dataclass(frozen=True)
class Followed:
    """Where Algorithm 1 comes to on the map at one lambda."""

    kinetic_weight: float
    jacobian: Jacobian
    schedule: Schedule
    collapse: Collapse


def run(config: Experiment) -> tuple[list[Row], dict[str, Any]]:
    """Score the schedules; writes score.json, score.png and each schedule's file; returns the rows and the record.

    Raises UserError where there is no map, or one of another network.
    """
    settings, folder = config.score, config.output / "score"
    processes = Processes(config.compute)
    if processes.world > 1:
        raise UserError("score: runs on one process; start it without torchrun or accelerate launch")
    maps = _maps(config)
    found, chosen_on = maps["heldout"], maps["train"].table()
    table = found.table()
    learned = config.output / "schedule.json"
    schedules = {
        str(c): c.make(config.layout, config.leader, learned, "run lwd sweep first") for c in settings.schedules
    }
    with progress_bar(
        "score: Algorithm 1 on the map", len(settings.kinetic_weights) * 2, 0, processes.shows
    ) as advance:
        diagram = _follow(config, chosen_on, advance)
    own = {one.kinetic_weight: one for one in diagram if one.jacobian == config.probe.jacobian}
    weakest = weakest_stable({weight: not one.collapse.collapsed for weight, one in own.items()})
    if weakest is not None:
        schedules[RULE] = own[weakest].schedule
    schedules[SPLINE] = best_line(chosen_on)
    lines = {name: line(schedule, found.grid.largest, settings.nodes) for name, schedule in schedules.items()}
    losses = _along(config, processes, found, lines)
    scores = score_lines(table, lines, losses, next(iter(schedules)))
    drawn = distances(config, schedules) if settings.samples else {}
    rows = [Row(n, s, on_map(table, s), scores[n], drawn.get(n)) for n, s in schedules.items()]
    record = {
        "format": "lwd.score/1",
        "images": found.images,
        "against": rows[0].name,
        "rows": [_as_json(row) for row in rows],
        "diagram": [_point(one) for one in diagram],
        "suggested": None,
    }
    for row, name in zip(rows, file_names([row.name for row in rows]), strict=True):
        row.schedule.save(folder / name)
    if settings.suggest is not None:
        best = suggest(rows, settings.suggest)
        record["suggested"] = best.name
        best.schedule.save(folder / "suggested.json")
    write_json(folder / "score.json", record)
    draw(folder / "score.png", record)
    write_run_files(config, folder)
    return rows, record


def file_names(schedules: Sequence[str]) -> list[str]:
    """A file name for each schedule, made of its own; no two alike, and none that of a file `run` writes."""
    taken = {"score.json", "suggested.json"}
    names = []
    for schedule in schedules:
        plain = schedule.replace(":", "_").replace("/", "_").removesuffix(".json")
        tried = (f"{plain}{end}.json" for end in ("", *(f"_{n}" for n in range(2, len(schedules) + 4))))
        names.append(next(name for name in tried if name not in taken))
        taken.add(names[-1])
    return names


def _maps(config: Experiment) -> dict[Split, Map]:
    """The maps of held-out and training images, which must be those of the network that is scored."""
    wanted = {
        "layout": config.layout.to_list(),
        "leader": config.leader,
        "weights": fingerprint(measured_checkpoint(config)),
        "seed": config.seed,
        "data": config.data_fingerprint(),
    }
    return read_maps(config.output / "map", wanted)


def suggest(rows: Sequence[Row], by: str) -> Row:
    """The best row. Raises UserError where nothing was measured by which to choose."""
    if by == "paper":
        found = [row for row in rows if row.name == RULE]
        if not found:
            raise UserError(
                "score.suggest: every lambda of score.kinetic_weights collapses on the map; name larger ones"
            )
        return found[0]
    if by == "distance":
        if any(row.distance is None for row in rows):
            raise UserError("score.suggest=distance: set score.samples, so that there are distances")
        return min(rows, key=lambda row: row.distance.value if row.distance else float("inf"))
    return min(rows, key=lambda row: (row.lines.nats if by == "nats" else row.lines.loss).value)


def _follow(config: Experiment, table: Table, advance: Callable[[int], None]) -> list[Followed]:
    """Follow Algorithm 1 on the map at each lambda, with either Jacobian."""
    probe, found = config.probe, []
    jacobians: tuple[Jacobian, ...] = ("stop", "exact")
    for jacobian in jacobians:
        for weight in sorted(config.score.kinetic_weights):
            how = probe.objective(config.layout.names) | {"jacobian": jacobian}
            schedule = learned_on(table, weight, family=probe.family, curve=probe.curve_settings, **how)
            collapse = assess(schedule, config.sweep.criterion)
            assert collapse is not None, "a map has a learned group"
            found.append(Followed(weight, jacobian, schedule, collapse))
            advance(1)
    return found


def _point(one: Followed) -> dict[str, Any]:
    """What of it goes into score.json."""
    points = torch.tensor(POINTS)
    return {
        "kinetic_weight": one.kinetic_weight,
        "jacobian": one.jacobian,
        "distance_from_collapse": one.collapse.distance,
        "collapsed": one.collapse.collapsed,
        "curve": {name: one.schedule[name](points)[0].tolist() for name in one.schedule.learned},
    }


def _along(config: Experiment, processes: Processes, map: Map, lines: dict[str, Line]) -> dict[str, Tensor]:
    """The network's held-out losses (N, M, G) along each line, on the map's own images and noise."""
    model, _ = open_network(config, processes)
    shards, settings, device = config.shards("heldout", features=False), config.map, processes.device
    found: dict[str, list[Tensor]] = {name: [] for name in lines}
    with progress_bar("score: along the schedules", map.images * len(lines), 0, processes.shows) as advance:
        for rows in torch.split(torch.arange(map.images), settings.block):
            batch = shards.read(rows)
            x1, labels = (tensor.to(device, non_blocking=True) for tensor in (batch.x1, batch.labels))
            velocity = velocity_of(model, labels, processes)
            x0 = noise(config.seed, 0, rows, x1)
            for name, path in lines.items():
                found[name].append(measure_line(velocity, x1, x0, path.times, config.layout, settings.batch))
                advance(len(rows))
    return {name: torch.cat(parts) for name, parts in found.items()}


def _as_json(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "schedule": row.schedule.hash(),
        **row.paper,
        **{key: asdict(value) for key, value in vars(row.lines).items()},
        "distance": None if row.distance is None else asdict(row.distance),
    }


def on_screen(record: dict[str, Any]) -> str:
    """The content of score.json, for people."""
    more = f"more than {record['against']}"
    lines = [f"{'schedule':14} {'L_flow':>7} {'R_kin':>7} {'L':>8} {more:>22} {'J, nats more':>18}  distance"]
    for row in record["rows"]:
        loss, nats = row["loss_more"], row["nats_more"]
        lines.append(
            f"{row['name'][-14:]:14} {row['flow']:7.3f} {row['kinetic']:7.3f} {row['loss']['value']:8.3f} "
            f"{loss['value']:+14.3f} ± {loss['error']:.3f} {nats['value']:+10.3f} ± {nats['error']:.3f}  "
            + ("" if row["distance"] is None else _distance_in_words(row["distance"]))
        )
    lines.append("Algorithm 1 on the map: distance from collapse by lambda (* collapsed)")
    for jacobian in ("stop", "exact"):
        points = [point for point in record["diagram"] if point["jacobian"] == jacobian]
        parts = [f"{p['kinetic_weight']:g}: {p['distance_from_collapse']:.2f}{'*' * p['collapsed']}" for p in points]
        lines.append(f"  {jacobian:6} " + "  ".join(parts))
    if record["suggested"] is not None:
        lines.append(f"suggested: {record['suggested']} -> score/suggested.json (train.schedule.path)")
    return "\n".join(lines)


def _distance_in_words(distance: dict[str, Any]) -> str:
    heun = "".join(f", {steps} Heun steps {value:.2f}" for steps, value in distance["heun"].items())
    more = f"{distance['more']:+.2f} ± {distance['error']:.2f}"
    return f"{distance['value']:.2f} ({more}){heun}, {distance['nfe']:.0f} evaluations"
