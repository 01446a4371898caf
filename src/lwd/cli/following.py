"""What comes after each stage: the line that it ends with."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

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
}
"""By stage, the command that goes on under the same config, and what it needs to find the stage's result."""


def following(stage: str, config: Path, overrides: Sequence[str] = (), output: Path | None = None) -> str:
    """ "next: lwd ...", with the overrides that the stage was given but for compute.resume, which would have the next
    one throw work away; nothing after a stage that is the last.

    ``output`` is OUTPUT, where the stage's result is to be named.
    """
    if stage == "report":
        return f"next: open {(output or Path()) / 'report.html'} in a browser"
    if stage not in FOLLOWING or config.is_dir():  # of a released model there is no data to measure its samples by
        return ""
    command, *more = FOLLOWING[stage]
    kept = [override for override in overrides if not override.startswith("compute.resume=")]
    named = [override.format(output=output) for override in more]
    return f"next: {shlex.join(['lwd', command, '-c', str(config), *kept, *named])}"
