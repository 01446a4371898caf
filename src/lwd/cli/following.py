"""What comes after each stage: the line that it ends with."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

FOLLOWING = {
    "init": "encode",
    "encode": "sweep",
    "sweep": "train",
    "train": "sample",
    "sample": "evaluate",
    "evaluate": "report",
    "map": "score",
}
"""By stage, the command that goes on under the same config."""


def following(stage: str, config: Path, overrides: Sequence[str] = (), output: Path | None = None) -> str:
    """ "next: lwd ...", with the overrides that the stage was given but for compute.resume, which would have the next
    one throw work away; nothing after a stage that is the last.

    ``output`` is OUTPUT, where the stage's result is to be named.
    """
    more: list[str] = []
    if stage == "report":
        return f"next: open {(output or Path()) / 'report.html'} in a browser"
    command = FOLLOWING.get(stage)
    if stage == "probe" and output is not None:
        command, more = "train", [f"train.schedule.path={output / 'probe' / 'schedule.json'}"]
    if stage == "semvae" and output is not None:
        model = output / "semvae" / "model"
        more = [f"data.path={output / 'data-semvae'}", "encode.semantic.compress=semvae"]
        command, more = "encode", [*more, f"encode.semantic.semvae={model}"]
    if command is None:
        return ""
    kept = [override for override in overrides if not override.startswith("compute.resume=")]
    return f"next: {shlex.join(['lwd', command, '-c', str(config), *kept, *more])}"
