"""`lwd runs`: the runs under a folder, as rows, for people and for machines."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lwd.console import printable, show
from lwd.errors import UserError
from lwd.files import to_json
from lwd.stages.watch.rows import MOST, SWEEP, Row, entries, row_of
from lwd.stages.watch.screen import duration, number

DEEPEST = 8
"""How far below the folder runs are looked for."""
_COLUMNS = ("run", "command", "state", "done", "loss", "images/s", "schedule", "last")
_STYLES = {"running": "green", "killed": "red", "unreadable": "red", "unknown": "yellow", "stopped": "yellow"}


@dataclass(frozen=True)
class Overview:
    """The runs below ``folder``, those written last first; ``whole``: whether all that lies there was looked at."""

    folder: Path
    rows: tuple[Row, ...]
    whole: bool


def overview(folder: Path) -> Overview:
    """Look for runs in ``folder`` and below; folders of other things are passed over, and no link is followed.

    Of a run the newest log line, its config and its newest checkpoint's state are read, each within a bound. Raises
    UserError where there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name one with runs, e.g. runs")
    rows, left, waiting = [], MOST, [(folder, 0)]
    while waiting and left > 0:
        inside, depth = waiting.pop()
        files, folders, count = entries(inside, left)
        left -= count
        row = row_of(inside, files, folders)
        if row is not None:
            rows.append(row)
        if depth < DEEPEST and (row is None or inside.name == SWEEP):
            waiting += [(inside / name, depth + 1) for name in folders]
    return Overview(folder, tuple(sorted(rows, key=lambda row: (-row.written, row.folder))), left > 0)


def print_overview(found: Overview, json: bool) -> None:
    """On stdout: JSON where that is asked for, a table on a terminal, else lines of text."""
    screen = Console()
    if json:
        show(to_json(as_json(found)).rstrip())
    elif screen.is_terminal:
        screen.print(as_table(found, time.time()))
    else:
        show(as_text(found, time.time()))


def as_json(found: Overview) -> list[dict[str, Any]]:
    """One mapping for each run, with the fields of `Row`."""
    return [asdict(row) | {"folder": str(row.folder)} for row in found.rows]


def as_text(found: Overview, now: float) -> str:
    """A line for each run at ``now``, in seconds since 1970, under a line of names; columns are padded by blanks."""
    lines = [_COLUMNS, *(_cells(row, found.folder, now) for row in found.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*text, *_notes(found)] if found.rows else _notes(found))


def as_table(found: Overview, now: float) -> Table:
    """The same for a terminal."""
    table = Table(*_COLUMNS, box=None, caption="\n".join(_notes(found)) or None, caption_justify="left")
    for row in found.rows:
        cells = [Text(cell) for cell in _cells(row, found.folder, now)]
        cells[_COLUMNS.index("state")].stylize(_STYLES.get(row.state, ""))
        table.add_row(*cells)
    return table


def _cells(row: Row, above: Path, now: float) -> tuple[str, ...]:
    of = "" if row.total is None else f" of {row.total:,}"
    schedule = " ".join(part for part in (row.schedule, row.fingerprint) if part)
    return (
        printable(str(row.folder.relative_to(above))),
        row.command,
        row.state,
        "-" if row.done is None else f"{row.done:,}{of} {row.unit}",
        number(row.loss),
        number(row.images_per_s),
        printable(schedule) or "-",
        f"{duration(max(0.0, now - row.written))} ago",
    )


def _notes(found: Overview) -> list[str]:
    notes = [printable(row.error) for row in found.rows if row.error is not None]
    notes += [] if found.rows else [f"{printable(str(found.folder))}: no runs here"]
    return notes + ([] if found.whole else [f"only the first {MOST:,} files and folders were looked at"])
