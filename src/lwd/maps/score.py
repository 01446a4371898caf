"""Scores of schedules on a map and on the network it is of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lwd.maps.dynamics import learned_on, objective
from lwd.maps.lines import Line, line_loss, nats
from lwd.maps.table import Table
from lwd.schedules import Schedule


@dataclass(frozen=True)
class Estimate:
    """A mean over images and its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, values: Tensor) -> Estimate:
        """values (N,)."""
        error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(float(values.mean()), error)


@dataclass(frozen=True)
class LineScore:
    """Held-out integrals along a schedule's line, and their differences from another one's on the same images.

    ``nats`` is J, ``loss`` is L of `lwd.maps.lines`; lower is better in both.
    """

    nats: Estimate
    loss: Estimate
    nats_more: Estimate
    loss_more: Estimate


def score_lines(table: Table, lines: dict[str, Line], losses: dict[str, Tensor], against: str) -> dict[str, LineScore]:
    """Scores by name from losses (N, M, G) along each line, image by image with the same noise; differences are paired
    and taken ``against`` one of them.
    """
    entries = table.layout.entries(table.positions)
    each = {
        name: (nats(path, losses[name], entries).cpu(), line_loss(path, losses[name], entries).cpu())
        for name, path in lines.items()
    }
    base = each[against]
    return {
        name: LineScore(Estimate.of(j), Estimate.of(loss), Estimate.of(j - base[0]), Estimate.of(loss - base[1]))
        for name, (j, loss) in each.items()
    }


def best_line(table: Table, bins: int = 6, steps: int = 300) -> Schedule:
    """The schedule whose L on the map is least, among monotone splines that may lead or lag."""
    return learned_on(
        table,
        0.0,
        family="rational-quadratic",
        curve={"bins": bins},
        steps=steps,
        burn_in=steps // 2,
        jacobian="exact",
        kinetic_trains="schedule",
        factors=table.layout.sizes,
    )


@torch.no_grad()
def on_map(table: Table, schedule: Schedule) -> dict[str, float]:
    """L_flow and R_kin (Eq. 33, 37) of a schedule for the flow loss's own denoiser, from the map alone."""
    found = objective(table, schedule, 0.0, kinetic_trains="schedule")
    return {name: float(found[name]) for name in ("flow", "kinetic")}
