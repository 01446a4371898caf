"""What is drawn of a map: both groups' losses, the coupling, and the network's own error."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lwd.maps import Map, coupling
from lwd.maps.table import log_snr
from lwd.plots.maps import Heat, save_maps
from lwd.schedules import Schedule


def draw(file: Path, map: Map, schedules: Mapping[str, Schedule]) -> None:
    """Write the panels of every pair of groups as one PNG, with the schedules over them."""
    heats = []
    for pair, follower in enumerate(map.followers):
        paths = {name: _path(schedule, map, follower) for name, schedule in schedules.items()}
        heat = partial(Heat, leader=map.leader, follower=follower, grid=map.grid.values, paths=paths)
        mean = map.loss[pair].double().mean(0)
        heats += [heat(f"loss of {name}", values=mean[..., map.index(name)]) for name in (map.leader, follower)]
        one, other = coupling(map, pair)
        inner = partial(heat, grid=map.grid.values[1:-1])
        heats.append(inner("coupling X, nats per log-SNR squared", values=(one + other) / 2))
        heats.append(inner("asymmetry of X: the network's own error", values=one - other, signed=True))
    save_maps(file, heats)


def _path(schedule: Schedule, map: Map, follower: str) -> Tensor:
    """The schedule's line in log-SNR: (M, 2)."""
    with torch.no_grad():
        times = schedule(torch.linspace(0, 1, 801, dtype=torch.float64))[0]
    pair = times[:, [map.index(map.leader), map.index(follower)]]
    return log_snr(pair).clamp(-map.grid.largest, map.grid.largest)
