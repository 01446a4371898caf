"""What comes after each stage: the line that it ends with."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lwd.stages.experiment import Experiment

FOLLOWING = {
    "init": ("encode",),
    "encode": ("sweep",),
    "semvae": (
        "encode",
        "data.path={output}/data-semvae",
        "encode.semantic.compress=semvae",
        "encode.semantic.semvae={output}/semvae/model",
    ),
    "probe": ("train", "train.schedule.path={output}/probe/schedule.json"),
    "sweep": ("train",),
    "train": ("sample",),
    "sample": ("evaluate",),
    "evaluate": ("report",),
    "map": ("score",),
    "score": (  # for another network than the one that was scored
        "train",
        "train.schedule={output}/score/suggested.json",
        "train.name=suggested",
        "train.times=null",
    ),
}
"""By stage, the command that goes on under the same config, and what it needs to find the stage's result."""


def following(stage: str, config: Path, overrides: Sequence[str] = (), experiment: Experiment | None = None) -> str:
    """ "next: lwd ...", with the overrides that the stage was given, but never with compute.resume=false, which would
    have the next one throw work away; nothing after the last stage, and after scores where no path was suggested.

    ``experiment`` is what ran, where the stage's result is to be named.
    """
    output = Path() if experiment is None else experiment.output
    if stage == "report":
        return f"next: open {output / 'report.html'} in a browser"
    if stage not in FOLLOWING or config.is_dir():  # of a released model there is no data to measure its samples by
        return ""
    if stage == "score" and (experiment is None or experiment.score.suggest is None):
        return ""
    command, *more = FOLLOWING[stage]
    named = [override.format(output=output) for override in more]
    dropped = tuple(f"{override.partition('=')[0]}=" for override in named)
    kept = [override for override in overrides if not override.startswith(("compute.resume=", "score.", *dropped))]
    if any(override.startswith("compute=") for override in kept):
        named.insert(0, "compute.resume=true")
    return f"next: {shlex.join(['lwd', command, '-c', str(config), *kept, *named])}"
