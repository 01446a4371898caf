"""`lwd schedule infer`: which schedule a network was trained under, found in the network itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from lwd.data.shards import LatentShards
from lwd.errors import UserError
from lwd.maps import LogSNR, Map, log_snr
from lwd.maps.infer import Candidate, Found, ahead_of, candidates, circulation, find_line
from lwd.maps.measure import measure_over
from lwd.models.pretrained import load_model, weights_folder
from lwd.models.record import read_record
from lwd.plots.maps import Heat, save_maps
from lwd.probe.fit import fit_points, start_of
from lwd.runtime.compute import ComputeConfig
from lwd.runtime.placement import place
from lwd.runtime.processes import Processes
from lwd.runtime.progress import progress_bar
from lwd.schedules import Schedule
from lwd.stages.map.run import noise, velocity_of

GRID = LogSNR(17, 8.0)
UNCLEAR = "cannot tell: the network is not clearly better along any line"
_BATCH, _BLOCK, _BINS = 512, 16, 16


@dataclass(frozen=True)
class Inferred:
    """The line that was found, the map that it is of, and the nearest schedules by name."""

    found: Found
    map: Map
    candidates: list[Candidate]

    @property
    def schedule(self) -> Schedule:
        """The simplest one inside of the interval: synchronous, the nearer of offset and power, or a spline."""
        names = self.map.layout.names
        first, *others = self.candidates
        held = [first] if first.held else sorted((one for one in others if one.held), key=lambda one: one.distance)
        if held:
            return held[0].schedule
        leader = self.found.leader
        follower = next(name for name in names if name != leader)
        times = self.found.times if leader == self.found.names[0] else self.found.times.flip(1)
        start = start_of("rational-quadratic", _BINS)
        return fit_points({follower: (times[:, 0], times[:, 1])}, names, leader, start)[0]

    def draw(self, file: Path) -> None:
        """Write a PNG: J around each cell, with the line, its interval and the nearest schedules."""
        found = self.found
        middle = (GRID.values[1:] + GRID.values[:-1]) / 2
        means = found.times[1:-1].mean(1)
        paths = {"found": found.ahead, "interval": found.low, "": found.high}
        nearest = min(self.candidates, key=lambda one: one.distance)
        paths |= {nearest.name: ahead_of(nearest.schedule, found.names)}
        lines = {
            name: log_snr(torch.stack([means + torch.from_numpy(ahead), means - torch.from_numpy(ahead)], 1))
            for name, ahead in paths.items()
        }
        cells = circulation(self.map).mean(0)
        save_maps(file, [Heat("J around each cell, nats", *found.names, middle, cells, lines, signed=True)])


def infer(checkpoint: Path, data: Path, images: int = 192, noises: int = 1, network: str | None = None) -> Inferred:
    """Measure a network's losses over pairs of local times, and find the line that it was trained on.

    ``data``: encoded data, of which held-out images are taken where there are any, or a folder of shards. ``network``:
    as for `load_model`. Raises UserError for a network of other than two groups, and for data that do not fit it.
    """
    folder = weights_folder(checkpoint)
    record = read_record(folder)
    layout = record.layout
    if len(layout.names) != 2:
        raise UserError(f"{checkpoint}: has {len(layout.names)} groups; a schedule is inferred for two")
    processes = Processes(ComputeConfig())
    model = place(load_model(folder, network), processes).eval()
    path = next((data / split for split in ("heldout", "train") if (data / split).is_dir()), data)
    shards = LatentShards(path, layout, flip=False, features=False)
    if shards.shape != tuple(record.shape):
        raise UserError(f"{path}: latents of {shards.shape}, the network is for {tuple(record.shape)}")
    rows = torch.arange(min(images, len(shards)))
    if len(rows) < 2:
        raise UserError(f"{path}: holds {len(shards)} image; an interval needs 2 or more")
    leader, parts = layout.names[-1], []
    with progress_bar("infer: pairs of local times", len(rows), 0, processes.shows) as advance:
        for some in torch.split(rows, _BLOCK):
            batch = shards.read(some)
            x1, labels = batch.x1.to(processes.device), batch.labels.to(processes.device)
            if int(labels.max()) >= record.num_classes:
                raise UserError(f"{path}: label {int(labels.max())}, the network knows 0 to {record.num_classes - 1}")
            velocity = velocity_of(model, labels, processes)
            drawn = (noise(0, draw, some, x1) for draw in range(noises))
            parts.append([values.cpu() for values in measure_over(velocity, x1, drawn, layout, leader, GRID, _BATCH)])
            advance(len(some))
    loss, speed = (torch.cat(values, dim=1) for values in zip(*parts, strict=True))
    if not bool(loss.isfinite().all()):
        raise UserError(
            f"{checkpoint}: its loss is not finite on {path}; the data are another network's, or it diverged"
        )
    map = Map(layout, leader, GRID, math.prod(shards.shape), loss, speed)
    found = find_line(map)
    return Inferred(found, map, candidates(found, layout.names))


def on_screen(inferred: Inferred) -> str:
    """The line, its interval and what is near it, for people."""
    found = inferred.found
    one, other = found.names
    lines = [f"  mean  {one:>8}  {other:>8}   at most, in either"]
    middles = zip(found.times[1:-1].tolist(), ((found.high - found.low) / 2).tolist(), strict=True)
    for number, ((first, second), half) in enumerate(middles):
        if number % 4 == 0:
            lines.append(f"{(first + second) / 2:6.2f}  {first:8.3f}  {second:8.3f}   ± {half:.3f}")
    for candidate in inferred.candidates:
        held = "inside of the interval" if candidate.held else "outside of the interval"
        lines.append(f"{candidate.name}, {found.leader} leading: at most {candidate.distance:.3f} away, {held}")
    lines.append(
        f"off the line a network of one schedule is worse: here by {found.gain:.2f} nats per entry at the edges"
    )
    return "\n".join(lines)
