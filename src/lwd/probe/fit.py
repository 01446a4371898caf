"""The curve of a family that is nearest to points, or to another schedule: least squares over its parameters."""

from __future__ import annotations

import copy
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from lwd.errors import UserError
from lwd.files import read_text
from lwd.schedules.curve import Curve
from lwd.schedules.distance import TAU
from lwd.schedules.registry import curve_class
from lwd.schedules.schedule import Schedule

Points = tuple[Tensor, Tensor]
"""Global times (N,) and local times (N,) in [0, 1], float64."""

_STEPS = 100
"""At most; where the best parameters are infinite, as of a curve that waits, nothing else ends the search."""


@dataclass(frozen=True)
class Fit:
    """A frozen curve, and how far its local times are from the points: root mean square, and at most."""

    curve: Curve
    rms: float
    largest: float


def fit_curve(start: Curve, points: Points) -> Fit:
    """Find the curve of ``start``'s class and settings with the least sum of squared distances (t(tau_i) - t_i)^2.

    By the trust-region Gauss-Newton method from two starts, the family's own and all parameters 0, of which the better
    end is kept. Of mixtures (polynomial, convex spline) that is the least there is; of other families it may be a local
    minimum: rational-quadratic curves have come back from their own points up to 0.03 away. Raises UserError for fewer
    points than parameters, ValueError for a curve with nothing to learn.
    """
    from scipy.optimize import least_squares

    if not start.learnable:
        raise ValueError(f"a {start.kind} curve has nothing to learn")
    own = start.start().parameter_vector().double().numpy()
    if len(points[0]) < len(own):
        raise UserError(
            f"{len(points[0])} points do not fix the {len(own)} parameters of the {start.kind} curve; "
            "give more points, a smaller --size or another --family"
        )
    tau, t = (values.double() for values in points)
    wide = copy.deepcopy(start).double().requires_grad_(False)

    def residual(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        vector_to_parameters(torch.from_numpy(vector), wide.parameters())
        found: NDArray[np.float64] = (wide(tau)[0] - t).numpy()
        return found

    ends = [least_squares(residual, begin, max_nfev=_STEPS) for begin in (own, np.zeros_like(own))]
    best = min(ends, key=lambda end: float(end.cost))
    curve = start.with_parameters(torch.from_numpy(best.x).float()).requires_grad_(False)
    error = curve(tau)[0] - t
    return Fit(curve, float(error.square().mean().sqrt()), float(error.abs().max()))


def fit_schedule(source: Schedule, leader: str, start: Curve) -> tuple[Schedule, dict[str, Fit]]:
    """Replace the curve of every group but ``leader`` by the nearest one like ``start``, at equal global times.

    The leader keeps its curve. Raises ValueError for an unknown leader.
    """
    if leader not in source.names:
        raise ValueError(f"leader {leader!r} is not one of the groups {list(source.names)}")
    with torch.no_grad():
        followers = {name: (TAU, source[name](TAU)[0]) for name in source.names if name != leader}
    return _assemble(source.names, {leader: copy.deepcopy(source[leader])}, followers, start)


def fit_points(
    points: Mapping[str, Points], names: Sequence[str], leader: str, start: Curve
) -> tuple[Schedule, dict[str, Fit]]:
    """Make the schedule of groups ``names`` with ``leader`` at t = tau and the curves nearest to the others' points.

    Raises ValueError where not every group but the leader has points.
    """
    if {leader, *points} != set(names) or leader in points:
        raise ValueError(f"points of {list(points)}, groups {list(names)}, leader {leader!r}: each but it needs points")
    return _assemble(names, {leader: Schedule.synchronous([leader])[leader]}, points, start)


def _assemble(
    names: Sequence[str], kept: Mapping[str, Curve], points: Mapping[str, Points], start: Curve
) -> tuple[Schedule, dict[str, Fit]]:
    fits = {name: fit_curve(start, points[name]) for name in names if name not in kept}
    curves = {name: kept[name] if name in kept else fits[name].curve for name in names}
    return Schedule(curves).requires_grad_(False), fits


def start_of(family: str, size: int | None) -> Curve:
    """Make a curve of the kind ``family``; ``size``: its one setting (degree, bins), None for the family's own.

    Raises UserError for a family that is unknown or has nothing to learn, and for a size that it does not take.
    """
    cls = curve_class(family, "--family")
    if size is not None and len(cls.settings) != 1:
        raise UserError(f"--size {size}: the family {family} has {len(cls.settings)} settings, not one; leave it out")
    try:
        curve = cls() if size is None else cls(**{cls.settings[0]: size})
    except ValueError as error:
        raise UserError(f"--size {size}: {error}") from error
    if not curve.learnable:
        raise UserError(f"--family {family}: a curve with nothing to learn; choose another")
    return curve


def read_points(path: Path, followers: Sequence[str]) -> dict[str, Points]:
    """Read the points of a CSV with the header ``tau,t`` (one follower), or ``tau`` and the names of all ``followers``.

    Rows in any order, at least two. Raises UserError for a table of another form or a number outside [0, 1].
    """
    try:
        rows = [row for row in csv.reader(read_text(path).removeprefix("\ufeff").splitlines(), strict=True) if row]
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV file ({error})") from error
    header = [cell.strip() for cell in rows[0]] if rows else []
    names = list(followers) if header == ["tau", "t"] and len(followers) == 1 else header[1:]
    if header[:1] != ["tau"] or sorted(names) != sorted(followers):
        wanted = "tau,t" if len(followers) == 1 else ",".join(["tau", *followers])
        raise UserError(f"{path}: the header must read {wanted}; it reads {','.join(header)[:80]!r}")
    if len(rows) < 3:
        raise UserError(f"{path}: {len(rows) - 1} points; a curve needs two or more")
    table = torch.tensor(
        [_numbers(row, len(header), f"{path}: row {n}") for n, row in enumerate(rows[1:], 1)], dtype=torch.float64
    )
    return {name: (table[:, 0], table[:, column]) for column, name in enumerate(names, 1)}


def _numbers(row: list[str], width: int, where: str) -> list[float]:
    try:
        numbers = [float(cell) for cell in row]
    except ValueError:
        numbers = []
    if len(numbers) != width or not all(0 <= number <= 1 for number in numbers):
        raise UserError(f"{where}: must be {width} numbers from 0 to 1, got {','.join(row)[:80]!r}")
    return numbers
