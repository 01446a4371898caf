"""A schedule for people: a table of its local times, and a picture."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from lwd.plots.drawing import save_png
from lwd.plots.figures import DASHED, TAU_LABEL, Line, draw_unit_square
from lwd.plots.theme import variant_colour
from lwd.schedules import Schedule

TAU = torch.linspace(0, 1, 201, dtype=torch.float64)
"""Global times at which curves are drawn."""
_ROWS = torch.linspace(0, 1, 11, dtype=torch.float64)


@torch.no_grad()
def table(schedule: Schedule) -> str:
    """Local times at eleven global ones, a column for each group; below, formulas, the hash and the origin."""
    width = max(6, *map(len, schedule.names))
    lines = ["   tau" + "".join(f"  {name:>{width}}" for name in schedule.names)]
    for tau, times in zip(_ROWS.tolist(), schedule(_ROWS)[0].tolist(), strict=True):
        lines.append(f"{tau:6.1f}" + "".join(f"  {time:{width}.3f}" for time in times))
    lines += [f"{name}: {schedule[name].formula()}" for name in schedule.names]
    return "\n".join([*lines, f"hash {schedule.hash()}, {schedule.origin or 'origin not recorded'}"])


@torch.no_grad()
def save_picture(schedule: Schedule, file: Path) -> None:
    """Write a PNG of every group's local time over global time."""
    lines = [
        Line(name, TAU.numpy(), schedule[name](TAU)[0].numpy(), variant_colour(number))
        for number, name in enumerate(schedule.names)
    ]
    lines.append(Line("synchronous", TAU.numpy(), TAU.numpy(), "muted", DASHED, 1.0))
    save_png(file, [partial(draw_unit_square, lines=lines, x_label=TAU_LABEL, y_label="local time")])
