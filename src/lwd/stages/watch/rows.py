"""One run in one row, read from its folder within a bound."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lwd.config import SETTINGS, parse
from lwd.data import samples
from lwd.errors import UserError
from lwd.files import parse_json, read_bounded
from lwd.maps import files as maps
from lwd.probe.table import TABLE
from lwd.runtime.checkpoint import STATE, checkpoint_path
from lwd.runtime.lock import is_held
from lwd.schedules.choice import ScheduleChoice
from lwd.stages.watch.run import Run
from lwd.training.log_file import TRACE, last_line

State = Literal["running", "ended", "stopped", "killed", "unknown", "unreadable"]
"""running: a process holds the folder; ended: nothing is to come; stopped: all that was done is saved, the same command
goes on; killed: what came after the last checkpoint is lost; unknown: whether a process holds it cannot be told."""

MOST = 100_000
"""How many files and folders are looked at, at the most."""
SCHEDULE = "schedule.json"
SWEEP = "sweep"
"""The name of the folder of a sweep, whose probes are runs of their own."""
_PROBE = "lambda-"


@dataclass(frozen=True)
class Row:
    """One run. ``done`` of ``total`` ``unit``; what is not known is None."""

    folder: Path
    command: str
    state: State
    unit: str = "steps"
    done: int | None = None
    total: int | None = None
    loss: float | None = None
    images_per_s: float | None = None
    schedule: str | None = None
    """In short, as `offset:0.3` or `lambda 0.04`."""
    fingerprint: str | None = None
    """The schedule's hash."""
    written: float = 0.0
    """When the last line or part was, in seconds since 1970."""
    error: str | None = None
    """Why it is unreadable."""


def row_of(folder: Path, files: set[str], folders: set[str]) -> Row | None:
    """The run in a folder that holds ``files`` and ``folders``; None for a folder of something else."""
    read = _reader(folder, files, folders)
    if read is None:
        return None
    try:
        return read(folder)
    except UserError as error:
        return Row(folder, "?", "unreadable", written=_written(folder), error=str(error))


def _reader(folder: Path, files: set[str], folders: set[str]) -> Callable[[Path], Row | None] | None:
    if TRACE in files:
        return _trained
    if samples.RECIPE in files:
        return _sampled
    if maps.RECIPE in files:
        return _mapped
    if folder.name == SWEEP and (TABLE in files or any(name.startswith(_PROBE) for name in folders)):
        return _swept
    return None


def _trained(folder: Path) -> Row | None:
    """A run of the training loop: `lwd train`, `lwd probe` or `lwd semvae`; None for a log of something else."""
    run, line = Run(folder), last_line(folder / TRACE)
    run.add([line] if line is not None else [])
    saved = _newest_checkpoint(folder)
    if line is None and not (folder / SETTINGS).is_file():
        return None
    state = "ended" if run.ended else _state(folder, run.done == (saved or 0))
    row = Row(
        folder,
        run.command,
        state,
        done=run.done,
        total=run.plan[0],
        loss=_number(run.latest.get("loss")),
        images_per_s=_number(run.latest.get("images_per_s")),
        written=_written(folder / TRACE),
    )
    if run.command == "train":
        found = None if saved is None else _json(checkpoint_path(folder, saved) / STATE).get("recipe")
        mark = found.get("schedule") if isinstance(found, Mapping) else None
        return replace(row, schedule=_choice(folder, run.section("train").get("schedule")), fingerprint=_text(mark))
    if run.command == "probe":
        weight = _number(run.section("probe").get("kinetic_weight"))
        return replace(row, schedule=_lambda(weight), fingerprint=_hash(folder / SCHEDULE))
    return row


def _sampled(folder: Path) -> Row:
    begun = _json(folder / samples.RECIPE)
    settings = begun.get("sample")
    settings = settings if isinstance(settings, Mapping) else {}
    total, block = (_count(settings.get(key)) for key in ("num", "block"))
    names = (re.fullmatch(r"(\d{6})\.safetensors", name) for name in entries(folder / samples.PARTS)[0])
    done = None
    if total is not None and block is not None:
        done = sum(max(0, min(block, total - int(match[1]) * block)) for match in names if match)
    row = _by_blocks(folder, "sample", (samples.RECIPE, samples.PARTS, samples.INFO), done, total)
    return replace(row, schedule=_choice(folder, settings.get("schedule")), fingerprint=_text(begun.get("schedule")))


def _mapped(folder: Path) -> Row:
    _json(folder / maps.RECIPE)
    names = (re.fullmatch(r"[a-z]+-\d{6}-(\d{1,9})\.safetensors", name) for name in entries(folder / maps.PARTS)[0])
    done = sum(int(match[1]) for match in names if match)
    return _by_blocks(folder, "map", (maps.RECIPE, maps.PARTS, maps.FACTS), done, None)


def _by_blocks(folder: Path, command: str, files: tuple[str, str, str], done: int | None, total: int | None) -> Row:
    """A run that writes finished images block by block; ``files``: what began it, its parts, and what ends it."""
    recipe, parts, end = (folder / name for name in files)
    ended = end.is_file()
    state = "ended" if ended else _state(folder, True)
    written = max(map(_written, (recipe, end, parts)))
    return Row(folder, command, state, "images", total if ended else done, total, written=written)


def _swept(folder: Path) -> Row:
    probes = [folder / name for name in entries(folder)[1] if name.startswith(_PROBE)]
    ended = (folder / TABLE).is_file()
    chosen = _number(_json(folder / TABLE).get("chosen")) if ended else None
    states = {is_held(probe) for probe in probes}
    state: State = "running" if True in states else "ended" if ended else "unknown" if None in states else "stopped"
    return Row(
        folder,
        "sweep",
        state,
        "probes",
        sum((probe / SCHEDULE).is_file() for probe in probes),
        schedule=_lambda(chosen),
        fingerprint=None if chosen is None else _hash(folder.parent / SCHEDULE),
        written=max(map(_written, [folder / TABLE, *(probe / TRACE for probe in probes)])),
    )


def _state(folder: Path, saved: bool) -> State:
    """Of a run that has not ended."""
    held = is_held(folder)
    return "unknown" if held is None else "running" if held else "stopped" if saved else "killed"


def _newest_checkpoint(folder: Path) -> int | None:
    """Its number of steps."""
    steps = [int(name[5:]) for name in entries(folder)[1] if re.fullmatch(r"step-\d{1,18}", name)]
    return max(steps, default=None)


def _choice(folder: Path, data: Any) -> str | None:
    """A schedule as a config names it, in short."""
    return None if data is None else str(parse(ScheduleChoice, data, f"{folder / SETTINGS}: schedule"))


def _lambda(weight: float | None) -> str | None:
    return None if weight is None else f"lambda {weight:g}"


def _hash(file: Path) -> str | None:
    return _text(_json(file).get("hash")) if file.is_file() else None


def _json(file: Path) -> Mapping[str, Any]:
    data = parse_json(read_bounded(file), str(file))
    if not isinstance(data, dict):
        raise UserError(f"{file}: not a file of lwd")
    return data


def _written(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def entries(folder: Path, most: int = MOST) -> tuple[set[str], set[str], int]:
    """Names of files and of folders, no links and nothing hidden, and how many entries that took."""
    files: set[str] = set()
    folders: set[str] = set()
    count = 0
    try:
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries, start=1):
                if not entry.name.startswith("."):
                    files |= {entry.name} if entry.is_file(follow_symlinks=False) else set()
                    folders |= {entry.name} if entry.is_dir(follow_symlinks=False) else set()
                if count >= most:
                    break
    except OSError:  # not for us to look into
        pass
    return files, folders, count
