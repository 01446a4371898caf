"""How far apart two curves are, and two schedules."""

from __future__ import annotations

import torch

from lwd.schedules.curve import Curve
from lwd.schedules.schedule import Schedule

TAU = torch.linspace(0, 1, 1001, dtype=torch.float64)
POINTS = (0.25, 0.5, 0.75)
"""Global times at which logs and tables name a curve's local times."""


@torch.no_grad()
def curve_distance(one: Curve, other: Curve) -> float:
    """The largest distance between two curves over tau, on 1 001 points.

    The error is below (M + 1) / 2000 for polynomials of degree M: half a grid step times the largest rate.
    """
    return float((one(TAU)[0] - other(TAU)[0]).abs().max())


@torch.no_grad()
def schedule_distances(one: Schedule, other: Schedule, leader: str) -> dict[str, float]:
    """Measure how far apart each group's local times are at most, when ``leader`` is at the same one, on 1 001 of them.

    A schedule in another global time, t_g(s(tau)), pairs the same local times and is at distance 0. Where the leader
    has arrived, the others are as they were when it did. Raises ValueError for schedules of other groups.
    """
    if set(one.names) != set(other.names) or leader not in one.names:
        raise ValueError(f"groups {list(one.names)} and {list(other.names)}, leader {leader!r}: not the same groups")
    tau, other_tau = one[leader].inverse(TAU), other[leader].inverse(TAU)
    return {
        name: float((one[name](tau)[0] - other[name](other_tau)[0]).abs().max()) for name in one.names if name != leader
    }
