"""The end of a run whose steps are skipped one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from lwd.errors import UserError
from lwd.files import write_json
from lwd.runtime.guard import Guard
from lwd.runtime.logging import read_log


def check_skipped(
    guard: Guard, limit: int, folder: Path, images: Callable[[int], Tensor], first: int, is_main: bool
) -> None:
    """Raise UserError where ``limit`` steps in a row were skipped, leaving a list of them and their images.

    ``images(step)`` says which images made a step, ``first`` with which step this process began.
    """
    longest = guard.longest_run()
    if longest < limit:
        return
    report = folder / "skipped.json"
    if is_main:
        steps = [int(line["step"]) for line in read_log(folder / "trace.jsonl") if line.get("skipped")]
        write_json(report, [{"step": s, "images": images(s).tolist()} for s in steps if s >= first])
    raise UserError(
        f"{folder}: {longest} steps in a row were skipped, their gradients not finite or far beyond the usual "
        f"({report} lists their images); they changed nothing, the steps before may have: lower the learning rate "
        "or set compute.clip_norm, and go back to an earlier checkpoint or start in another output"
    )
