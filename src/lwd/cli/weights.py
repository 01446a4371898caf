"""`lwd export`, `ema` and `convert`, what is done with trained weights: nothing but argument parsing and calls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lwd.console import one_line_errors, show
from lwd.errors import UserError


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of lwd train, e.g. OUTPUT/train/NAME/step-00400000")],
    target: Annotated[Path, typer.Argument(help="The folder to write")],
    data: Annotated[
        str | None,
        typer.Option(help="What it was trained on, a folder or its URL, for the decoder; default: where it was then"),
    ] = None,
    push_to: Annotated[str | None, typer.Option(help="Also upload it to this Hub repository, e.g. me/my-model")] = None,
) -> None:
    """What sampling needs of a checkpoint: the averaged weights, the schedule, what decodes, and a model card."""
    from lwd.stages.train.export import export as write
    from lwd.stages.train.export import push

    with one_line_errors():
        show(write(checkpoint, target, data))
        if push_to is not None:
            show(push(target, push_to))


def ema(
    folder: Annotated[Path, typer.Argument(help="A training run with train.posthoc_ema, e.g. OUTPUT/train/NAME")],
    sigma_rel: Annotated[float, typer.Option(help="The average's width, as a share of the steps, e.g. 0.08")],
    step: Annotated[int | None, typer.Option(help="After how many steps; default: at the last snapshot")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder in which step-STEP is written; default: FOLDER-sigma-WIDTH")
    ] = None,
) -> None:
    """An average of the weights of any width, after training: a checkpoint for `lwd sample` and `lwd export`."""
    from lwd.stages.train.power_ema import reconstruct

    with one_line_errors():
        show(reconstruct(folder, sigma_rel, step, out))


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
    data: Annotated[
        Path | None, typer.Option(help="Without --schedule: look for it in the network, on encoded data of its kind")
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
            if choice is None and data is not None:
                from lwd.stages.infer import UNCLEAR, infer, on_screen

                inferred = infer(target, data)
                show(on_screen(inferred))
                take = f"to take it: lwd schedule infer {target} --data {data} --out {target / 'schedule.json'}"
                show(take if inferred.found.clear else UNCLEAR)
