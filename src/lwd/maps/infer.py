"""The line through the local times that a network was trained on, found in the network itself.

For the ideal denoiser J, the integral of 1/2 sum_g N_g dlambda_g, is the same along every line (`lwd.maps.lines`). A
network that saw one line only is worse off it, and its J is least there. By Green's theorem J(line) is J along the
map's lower edge less the circulations of the cells between the two, so that the least J is found by dynamic
programming, and no parameter of the network or the schedule enters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from lwd.maps.information import noise_errors
from lwd.maps.table import Map
from lwd.schedules import Schedule
from lwd.schedules.choice import ScheduleChoice

CLEAR = 0.8
"""Nats per entry by which the map's two edges together must exceed the line. Networks of one schedule had 1.6 to 2.9
on the digits after 1 000 steps, a joint one 0.25."""
WIDEST = 0.2
"""Half an interval, at most, for a line that is told."""
SLACK = 0.1
"""Of the largest circulation at the same sum of times: by how much any may be wrong, since a network's error falls off
smoothly beside its line. Chosen on seven networks of the digits, for intervals that hold their lines."""
MEANS = np.linspace(0.05, 0.95, 37)
"""Means of the two local times at which a line is read."""
FAMILIES = (
    ("synchronous",),
    tuple(f"offset:{delta / 100:g}" for delta in range(1, 101)),
    tuple(f"power:{exponent / 20:g}" for exponent in range(21, 161)),
)
"""Short names of what a line is compared with, by family."""
_FINER = 8
_DENSE = torch.linspace(0, 1, 4001, dtype=torch.float64)


@dataclass(frozen=True)
class Found:
    """The first group's local time less the mean of both, (M,) at `MEANS`, between ``low`` and ``high``.

    ``gain``: nats per entry, what the map's edges cost more than the line.
    """

    names: tuple[str, str]
    ahead: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    gain: float

    @property
    def width(self) -> float:
        """Half of the interval, at most."""
        return float((self.high - self.low).max()) / 2

    @property
    def clear(self) -> bool:
        """Whether there is a line to be told."""
        return self.gain >= CLEAR and self.width <= WIDEST

    @property
    def leader(self) -> str:
        """The group that is ahead, on the whole."""
        return self.names[0] if self.ahead.mean() >= 0 else self.names[1]

    @property
    def times(self) -> Tensor:
        """The line (M, 2), with its ends at (0, 0) and (1, 1)."""
        pairs = np.stack([MEANS + self.ahead, MEANS - self.ahead], axis=1).clip(0, 1)
        return torch.from_numpy(np.concatenate([[[0.0, 0.0]], np.maximum.accumulate(pairs), [[1.0, 1.0]]]))

    def distance(self, schedule: Schedule) -> float:
        """How far a schedule of the two groups is from the line at most, in either local time at equal means."""
        return float(np.abs(ahead_of(schedule, self.names) - self.ahead).max())

    def holds(self, schedule: Schedule) -> bool:
        """Whether a schedule of the two groups is inside of the interval everywhere."""
        at = ahead_of(schedule, self.names)
        return bool(((self.low <= at) & (at <= self.high)).all())


@torch.no_grad()
def ahead_of(schedule: Schedule, names: tuple[str, str]) -> NDArray[np.float64]:
    """The first group's local time less the mean of both, at `MEANS` (M,): whatever the schedule's global time is."""
    one, other = (schedule[name](_DENSE)[0].numpy() for name in names)
    found: NDArray[np.float64] = np.interp(MEANS, (one + other) / 2, (one - other) / 2)
    return found


def find_line(map: Map) -> Found:
    """Find the line of least J of a map of two groups. Raises ValueError for another number of groups."""
    if len(map.followers) != 1:
        raise ValueError(f"a line is found between two groups, not {len(map.layout.names)}")
    cells = circulation(map)
    mean, error = cells.mean(0), cells.std(0) / len(cells) ** 0.5
    mean, error = _finer(mean), _finer(error).abs()
    slack = SLACK * _largest_beside(mean) + 1.96 * error
    edges = torch.sigmoid(torch.linspace(-1, 1, len(mean) + 1, dtype=torch.float64) * map.grid.largest / 2)
    heights = _least(torch.stack([mean, mean - slack, mean + slack]))
    line, low, high = (_read(edges, row) for row in heights)
    hidden = float(edges[0]) + 1e-6  # what lies between the box and the ends of [0, 1] is not measured
    below = torch.cumsum(torch.cat([mean.new_zeros(len(mean), 1), mean], 1), 1)
    best = float(below.gather(1, heights[0][:, None]).sum())
    entries = sum(map.layout.entries(map.positions))
    gain = (2 * best - float(mean.sum())) / entries
    bounds = np.minimum(low, high) - hidden, np.maximum(low, high) + hidden
    return Found((map.leader, map.followers[0]), line, *bounds, gain)


def circulation(map: Map) -> Tensor:
    """J around each cell of the grid of each image (N, K - 1, K - 1): right then up, less up then right.

    Zero but for its discretisation where N_g are the derivatives of one function, as the ideal denoiser's are.
    """
    lead, follow = noise_errors(map).unbind(-1)
    right = lead[:, :-1] + lead[:, 1:]  # twice the mean over a step of the leader, at each follower's time
    up = follow[:, :, :-1] + follow[:, :, 1:]
    step = float(map.grid.values[1] - map.grid.values[0])
    return step / 4 * (right[:, :, :-1] + up[:, 1:] - up[:, :-1] - right[:, :, 1:])


@dataclass(frozen=True)
class Candidate:
    """A schedule by name: its distance from a line, and whether the line's interval holds it."""

    name: str
    schedule: Schedule
    distance: float
    held: bool


def candidates(found: Found, names: Sequence[str]) -> list[Candidate]:
    """The nearest schedule of each family; ``names``: the groups in order."""
    nearest = []
    for family in FAMILIES:
        made = [(name, ScheduleChoice.named(name, "").fixed(list(names), found.leader)) for name in family]
        tried = [Candidate(name, one, found.distance(one), found.holds(one)) for name, one in made if one is not None]
        nearest.append(min(tried, key=lambda one: one.distance))
    return nearest


def _finer(cells: Tensor) -> Tensor:
    """Spread each cell's integral over finer ones, smoothly."""
    fine: Tensor = interpolate(cells[None, None], scale_factor=_FINER, mode="bicubic", align_corners=False)
    return fine[0, 0] / _FINER**2


def _largest_beside(cells: Tensor) -> Tensor:
    """The largest magnitude on each cell's antidiagonal."""
    size = len(cells)
    place = torch.arange(size)[:, None] + torch.arange(size)
    largest = cells.new_zeros(2 * size - 1).scatter_reduce(0, place.flatten(), cells.abs().flatten(), "amax")
    return largest[place]


def _least(cells: Tensor) -> Tensor:
    """For each of B arrays (B, n, n): the non-decreasing heights (B, n) with the largest sum of the cells below."""
    below = torch.cat([cells.new_zeros(*cells.shape[:2], 1), cells.cumsum(2)], 2)
    value, back = below[:, 0], []
    for column in range(1, cells.shape[1]):
        value, best = torch.cummax(value, 1)
        back.append(best)
        value = value + below[:, column]
    heights = [value.argmax(1)]
    for best in reversed(back):
        heights.append(best.gather(1, heights[-1][:, None])[:, 0])
    return torch.stack(heights[::-1], 1)


def _read(edges: Tensor, heights: Tensor) -> NDArray[np.float64]:
    """A staircase as `Found.ahead`: edges (n + 1,) of the cells in local time, heights (n,)."""
    first, last = float(edges[0]), float(edges[-1])
    follower = np.concatenate([[0, first], edges[heights].repeat_interleave(2).numpy(), [last, 1]])
    leader = np.concatenate([[0, first], torch.stack([edges[:-1], edges[1:]], 1).flatten().numpy(), [last, 1]])
    found: NDArray[np.float64] = np.interp(MEANS, (leader + follower) / 2, (leader - follower) / 2)
    return found
