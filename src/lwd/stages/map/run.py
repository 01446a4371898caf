"""`lwd map`: measure a joint-time network over pairs of local times, block by block, into OUTPUT/map."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from lwd.config import Batch, Config
from lwd.data.shards import LatentShards
from lwd.errors import UserError
from lwd.files import atomic_path, remove, write_json
from lwd.maps import LogSNR, Map, coupling, mutual_information
from lwd.maps.files import FACTS, PARTS, RECIPE, SPLITS, TENSORS, Split, write_maps
from lwd.maps.measure import Velocity, measure_over
from lwd.models.pretrained import fingerprint, load_checkpoint_model, newest_checkpoint
from lwd.records import read_mapping
from lwd.run import RunConfig, write_run_files
from lwd.runtime.checkpoint import first_difference, load_tensors, save_tensors
from lwd.runtime.lock import alone_in
from lwd.runtime.placement import place
from lwd.runtime.preemption import InTime
from lwd.runtime.processes import Processes
from lwd.runtime.progress import progress_bar
from lwd.runtime.seeding import Stream, normal
from lwd.schedules import Schedule
from lwd.stages.map.picture import draw
from lwd.stages.map.score_settings import ScoreSettings

PICTURE = "map.png"


class MapSettings(Config):
    """What is measured, and where."""

    checkpoint: Path | None = None
    """A checkpoint of a network trained with train.times; None: the newest of the run that ``train.name`` names."""
    images: int = Field(default=256, ge=2)
    """Of each split, the first ones; two or more, over which the standard errors are."""
    points: int = Field(default=13, ge=3, le=200)
    """Of the grid, on each axis."""
    largest: float = Field(default=8.0, gt=0, le=40)
    """The grid's ends in log-SNR; 8 is a local time of 0.982."""
    noises: PositiveInt = 1
    """Draws of noise of each image, over which it is averaged."""
    batch: Batch = 512
    """Latents that the network sees at once."""
    block: PositiveInt = 32
    """Images that are finished and written together: what a killed run loses at the most, for each process."""

    @property
    def grid(self) -> LogSNR:
        """The grid in log-SNR."""
        return LogSNR(self.points, self.largest)


class MapConfig(RunConfig):
    """Everything `run` reads, and what `lwd score` reads of its own."""

    map: MapSettings = MapSettings()
    score: ScoreSettings = ScoreSettings()


def run(config: MapConfig) -> Path:
    """Measure the map of the network on held-out and training images; returns OUTPUT/map.

    Finished blocks are found again. Raises UserError for a network that was trained under one schedule only, and for
    a folder with a map of other settings, unless ``compute.resume`` is off.
    """
    settings, folder = config.map, config.output / "map"
    processes = Processes(config.compute)
    model, checkpoint = open_network(config, processes)
    shards = {split: config.shards(split, features=False) for split in SPLITS}
    for one in shards.values():
        if len(one) < 2:
            raise UserError(f"{one.path}: holds {len(one)} image; a map needs 2, for its standard errors")
    recipe = {
        "map": settings.model_dump(mode="json", include={"images", "points", "largest", "noises"}),
        "weights": fingerprint(checkpoint),
        "leader": config.leader,
        "seed": config.seed,
        "data": config.data_fingerprint(),
    }
    with alone_in(folder) if processes.is_main else nullcontext():
        if processes.is_main:
            _prepare(folder, recipe, config)
        processes.barrier()
        if (folder / FACTS).is_file():
            processes.say(f"{folder}: finished before")
            return folder
        started = time.perf_counter()
        in_time = processes.in_time()
        for split in SPLITS:
            _measure(config, processes, model, split, shards[split], folder, in_time)
            in_time.end(str(folder))
        processes.barrier()
        if processes.is_main:
            _finish(folder, config, checkpoint, shards, time.perf_counter() - started)
        processes.barrier()
    return folder


def measured_checkpoint(config: MapConfig) -> Path:
    """The checkpoint of the network that is measured. Raises UserError where the run has none."""
    return config.map.checkpoint or newest_checkpoint(config.trained)


def open_network(config: MapConfig, processes: Processes) -> tuple[nn.Module, Path]:
    """The joint-time network and its checkpoint. Raises UserError for one trained under one schedule only."""
    checkpoint = measured_checkpoint(config)
    model, schedule = load_checkpoint_model(checkpoint, config.model.name)
    if not schedule.any_other:
        raise UserError(
            f"{checkpoint}: trained under the schedule {schedule.hash()} alone, so that it knows no other pairs of "
            "local times; train with train.times=independent (docs/map.md)"
        )
    return place(model, processes).eval(), checkpoint


def velocity_of(model: nn.Module, labels: Tensor, processes: Processes) -> Velocity:
    """The network with the images' own labels."""

    def velocity(z: Tensor, times: Tensor, image: Tensor) -> Tensor:
        with processes.autocast():
            v: Tensor = model(z, times, labels[image])
        return v

    return velocity


def noise(seed: int, draw: int, rows: Tensor, x1: Tensor) -> Tensor:
    """The noise of images ``rows`` (n,), of the shape of x1 (n, C, ...), in draw number ``draw``: the same at every
    point and under every schedule."""
    return normal(Stream.MAP, seed, draw, rows.to(x1.device, non_blocking=True), tuple(x1.shape[1:]))


def _measure(
    config: MapConfig,
    processes: Processes,
    model: nn.Module,
    split: Split,
    shards: LatentShards,
    folder: Path,
    in_time: InTime,
) -> None:
    """This process's share of the blocks of one split that are not there yet."""
    settings, device = config.map, processes.device
    mine = _blocks(settings, len(shards))[processes.rank :: processes.world]
    missing = [rows for rows in mine if not _part(folder, split, rows).is_file()]
    total = sum(map(len, mine))
    with progress_bar(f"map {split}", total, total - sum(map(len, missing)), processes.shows) as advance:
        for rows in in_time.of(missing):
            batch = shards.read(rows)
            x1, labels = (tensor.to(device, non_blocking=True) for tensor in (batch.x1, batch.labels))
            velocity = velocity_of(model, labels, processes)
            noises = (noise(config.seed, draw, rows, x1) for draw in range(settings.noises))
            found = measure_over(velocity, x1, noises, config.layout, config.leader, settings.grid, settings.batch)
            loss, speed = (values.transpose(0, 1).cpu() for values in found)
            if not bool(loss.isfinite().all() and speed.isfinite().all()):
                raise UserError(
                    f"map: the network's loss is not finite on {split} images {int(rows[0])} to {int(rows[-1])}; "
                    "it diverged, or its latents did: choose an earlier checkpoint by map.checkpoint"
                )
            with atomic_path(_part(folder, split, rows)) as temporary:
                save_tensors(temporary, {"loss": loss, "speed": speed})
            advance(len(rows))


def _blocks(settings: MapSettings, available: int) -> tuple[Tensor, ...]:
    """The images of each block: int64 row numbers."""
    return torch.split(torch.arange(min(settings.images, available)), settings.block)


def _part(folder: Path, split: Split, rows: Tensor) -> Path:
    """Named by its images, so that a run that goes on with another ``map.block`` takes no other block for it."""
    return folder / PARTS / f"{split}-{int(rows[0]):06d}-{len(rows)}.safetensors"


def _prepare(folder: Path, recipe: dict[str, Any], config: MapConfig) -> None:
    """An empty folder, or one that the same settings began."""
    begun = folder / RECIPE
    if begun.is_file() and not config.compute.resume:
        for name in (FACTS, TENSORS, PICTURE, PARTS):
            remove(folder / name)
    elif begun.is_file() and (changed := first_difference(_begun(begun), recipe)):
        raise UserError(
            f"{folder}: a map of other settings: {changed}; replace it with compute.resume=false, or move it"
        )
    write_json(begun, recipe)
    (folder / PARTS).mkdir(exist_ok=True)
    write_run_files(config, folder)


def _begun(path: Path) -> dict[str, Any]:
    return read_mapping(path, "the settings of `lwd map`", "replace the map with compute.resume=false")


def _finish(
    folder: Path, config: MapConfig, checkpoint: Path, shards: Mapping[Split, LatentShards], seconds: float
) -> None:
    """Put the parts together; ``map.json`` comes last."""
    maps = {}
    for split in SPLITS:
        parts = [load_tensors(_part(folder, split, rows)) for rows in _blocks(config.map, len(shards[split]))]
        loss, speed = (torch.cat([part[key] for part in parts]).transpose(0, 1) for key in ("loss", "speed"))
        maps[split] = Map(config.layout, config.leader, config.map.grid, math.prod(shards[split].shape), loss, speed)
    draw(folder / PICTURE, maps["heldout"], _named(config))
    information: dict[str, Any] = {}
    for pair, name in enumerate(maps["heldout"].followers):
        routes = {split: mutual_information(found, pair) for split, found in maps.items()}
        one, other = coupling(maps["heldout"], pair)
        information[name] = {
            split: {route: {"nats": value, "error": error} for route, (value, error) in found.items()}
            for split, found in routes.items()
        } | {"coupling": float(one.mean()), "asymmetry": float((one - other).abs().mean())}
    facts = {"checkpoint": str(checkpoint), "weights": fingerprint(checkpoint), "seconds": seconds}
    facts |= {"seed": config.seed, "data": config.data_fingerprint()}
    write_maps(folder, maps, {**facts, "information": information})
    remove(folder / PARTS)


def _named(config: MapConfig) -> dict[str, Schedule]:
    """The schedules that are drawn over the maps."""
    names, lead = config.layout.names, config.leader
    drawn = {"synchronous": Schedule.synchronous(names), "offset 0.3": Schedule.offset(names, lead, 0.3)}
    learned = config.output / "schedule.json"
    return drawn | ({"learned": Schedule.load(learned)} if learned.is_file() else {})
