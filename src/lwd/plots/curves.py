"""The learned curves of one probe as a picture: where they are while it learns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lwd.plots.drawing import save_png
from lwd.plots.figures import DASHED, DOTTED, TAU_LABEL, Line, draw_unit_square
from lwd.plots.text import count, listed
from lwd.plots.theme import variant_colour
from lwd.schedules import Schedule
from lwd.schedules.collapse import extremal

TAU = torch.linspace(0, 1, 201, dtype=torch.float64)
"""Global times at which curves are drawn."""
_FIRST_COLOUR = 2


@torch.no_grad()
def save_probe_curves(file: Path, present: Schedule, averaged: Schedule | None, earlier: Sequence[Schedule]) -> None:
    """Write a PNG, step-N.png, of the learned curves: averaged bold, present thin, earlier faint; tau; extremal.

    ``averaged`` is None during burn-in; ``earlier`` are the schedules of the pictures before.
    """
    lines = []
    for i, name in enumerate(present.learned):
        colour = variant_colour(_FIRST_COLOUR + i)
        for k, schedule in enumerate(earlier):
            label = f"{name}, earlier" if k == 0 else ""
            lines.append(_line(label, schedule[name](TAU)[0], "ramp0", width=0.9))
        lines.append(_line(f"{name}, present", present[name](TAU)[0], colour, width=1.2))
        if averaged is not None:
            lines.append(_line(f"{name}, averaged", averaged[name](TAU)[0], colour, width=2.6))
    lines.append(Line("synchronous", TAU.numpy(), TAU.numpy(), "muted", DASHED, 1.0))
    last = extremal(present[present.learned[0]])
    lines.append(Line(f"extremal, {last.formula()}", TAU.numpy(), last(TAU)[0].numpy(), "muted", DOTTED, 1.0))
    draw = partial(
        draw_unit_square,
        lines=lines,
        x_label=TAU_LABEL,
        y_label=f"local time of {listed(present.learned)}",
        title=f"after {count(int(file.stem.rpartition('-')[2]))} steps",
    )
    save_png(file, [draw])


def _line(label: str, values: Tensor, colour: str, width: float) -> Line:
    return Line(label, TAU.numpy(), values.to(torch.float64).numpy(), colour, width=width)
