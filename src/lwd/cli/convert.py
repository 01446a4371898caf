"""`lwd convert`: nothing but argument parsing and calls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lwd.console import one_line_errors, show
from lwd.errors import UserError


def convert(
    source: Annotated[Path, typer.Argument(help="SFD's checkpoint (.pt), or a model folder of this project")],
    target: Annotated[Path, typer.Argument(help="Where the model folder, or SFD's checkpoint, is written")],
    which: Annotated[
        str, typer.Option(help="Of SFD's checkpoint: the averaged weights (ema) or the live ones (model)")
    ] = "ema",
    schedule: Annotated[
        str | None,
        typer.Option(help="What SFD's checkpoint was trained under: offset:0.3, power:2, synchronous, or a file"),
    ] = None,
) -> None:
    """Released SFD checkpoints to a folder that `from_pretrained` and `lwd sample` read, and back.

    `lwd convert sfd_xl.pt models/sfd-xl --schedule offset:0.3` writes config.json, model.safetensors, schedule.json and
    a card; without `--schedule` there is no schedule, and the folder cannot be sampled from until it has one.
    `lwd convert runs/x/train/learned/step-00400000/ema mine.pt` writes what SFD's own code loads.
    """
    from lwd.models.convert import from_sfd, to_sfd
    from lwd.schedules.choice import ScheduleChoice

    with one_line_errors():
        if source.is_dir():
            if schedule is not None:
                raise UserError(f"--schedule {schedule}: SFD's checkpoints hold no schedule; leave it out")
            show(to_sfd(source, target))
        else:
            choice = None if schedule is None else ScheduleChoice.named(schedule, "--schedule")
            show(from_sfd(source, target, which, choice))
