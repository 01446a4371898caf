"""The file of a log, trace.jsonl: one JSON object a step, thinned as it grows, whole after a kill or on a full disk.

The newest `WHOLE` lines all stay; of those up to 10 times as old every 10th, of those up to 100 times every 100th, and
so on; and every line with a measurement on held-out data or samples. Which lines those are follows from their steps and
the newest one's alone, so that a run that was killed and went on leaves the lines of one that was not. Three million
steps leave 40 000 lines at the most.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import NonNegativeInt, TypeAdapter, ValidationError

from lwd.errors import UserError
from lwd.files import atomic_path, read_end

Line = dict[str, Any]
"""``step``, and by name a number, a list of numbers and Nones, or None."""

TRACE = "trace.jsonl"
HELDOUT, SAMPLED = "heldout_", "sampled_"
MEASURED = (HELDOUT, SAMPLED)
"""How the names begin of what is measured now and then: on held-out data, and on samples."""
WHOLE = 10_000
_RATIO = 10
_CHUNK_BYTES = 2**16

_Number = int | float | None
_LINE: TypeAdapter[Line] = TypeAdapter(dict[str, _Number | list[_Number]])
_STEP: TypeAdapter[int] = TypeAdapter(NonNegativeInt)


class LogFile:
    """A log that is being written; ``first_step``: where a run goes on, whose earlier lines alone stay."""

    def __init__(self, path: Path, first_step: int) -> None:
        self.path = path
        _rewrite(path, first_step)
        self._thinned = _last_thinning(first_step - 1)

    def append(self, lines: Sequence[Line]) -> None:
        """Write lines, all of them or none. Raises OSError where that cannot be, as on a full disk."""
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        with self.path.open("ab", buffering=0) as file:
            end, written = file.seek(0, os.SEEK_END), 0
            try:
                while written < len(data):
                    written += file.write(data[written:])
            except OSError as error:
                with suppress(OSError):  # no file that can be cut; what went wrong is told all the same
                    file.truncate(end)
                raise OSError(error.errno, error.strerror, str(self.path)) from error
        newest = int(lines[-1]["step"])
        if _last_thinning(newest) > self._thinned:
            try:
                _rewrite(self.path, newest + 1)
            except OSError:  # a longer log does no harm, and is thinned the next time
                return
            self._thinned = _last_thinning(newest)


def read_log(path: Path) -> list[Line]:
    """The lines of a log, in order, as `scan_log` gives them."""
    return list(scan_log(path))


def scan_log(path: Path) -> Iterator[Line]:
    """The whole lines of a log, in order, one in memory at a time; of a log that was never thinned those that stay.

    Raises UserError where it is missing.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such log")
    with path.open("rb") as file:
        newest = newest_step(file)
        for text in file:
            line = parse_line(text)
            if line is not None and stays(line, newest):
                yield line


class Tail:
    """The lines that a log gained since the last look; from the start again where it was replaced (a resumed run, or
    one whose log was thinned)."""

    def __init__(self, path: Path) -> None:
        self._path, self._read, self._file = path, 0, -1

    def lines(self) -> tuple[bool, list[Line]]:
        """Whether to forget earlier lines, and the new whole ones; what is half written or no JSON is left out."""
        found = []
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            fresh = status.st_ino != self._file or status.st_size < self._read
            self._read, self._file = 0 if fresh else self._read, status.st_ino
            newest = newest_step(file)
            file.seek(self._read)
            for text in file:
                if not text.endswith(b"\n"):
                    break
                self._read += len(text)
                line = parse_line(text)
                if line is not None and stays(line, newest):
                    found.append(line)
        return fresh, found


def parse_line(text: bytes) -> Line | None:
    """A line of a log; None for what was cut short by a kill, and anything else that is no line of a log."""
    try:
        line = _LINE.validate_json(text, strict=True)
        _STEP.validate_python(line.get("step"), strict=True)
    except ValidationError:
        return None
    return line


def stays(line: Mapping[str, Any], newest: int) -> bool:
    """Whether a line is still there when ``newest`` is the last step that is logged."""
    return (line["step"] + 1) % _spacing(line["step"], newest) == 0 or any(key.startswith(MEASURED) for key in line)


def evenly_spaced(lines: Sequence[Line]) -> tuple[list[Line], int]:
    """Of the lines of a whole log as many as lie equally far apart, and how many steps that is."""
    spacing = _spacing(lines[0]["step"], lines[-1]["step"])
    return [line for line in lines if (line["step"] + 1) % spacing == 0], spacing


def _spacing(step: int, newest: int) -> int:
    """The number of steps between two lines that stay around ``step``."""
    age, spacing, reach = _last_thinning(newest) - step, 1, WHOLE
    while age > reach:
        spacing, reach = spacing * _RATIO, reach * _RATIO
    return spacing


def last_line(path: Path) -> Line | None:
    """The last line of a log, read from the file's end alone; None where there is none. Raises UserError for a link."""
    lines = (parse_line(text) for text in reversed(read_end(path).split(b"\n")))
    return next((line for line in lines if line is not None), None)


def newest_step(file: BinaryIO, before: float = float("inf")) -> int:
    """The last step under ``before`` that is logged, -1 where there is none; read from the file's end."""
    for text in _from_the_end(file):
        line = parse_line(text)
        if line is not None and line["step"] < before:
            file.seek(0)
            return int(line["step"])
    file.seek(0)
    return -1


def _last_thinning(newest: int) -> int:
    """The step at which a log that ends with ``newest`` was last thinned: as many lines as stay whole lie between."""
    return max(0, newest) // WHOLE * WHOLE


def _rewrite(path: Path, before: int) -> None:
    """Keep, atomically, the lines of steps under ``before`` that stay."""
    with atomic_path(path) as temporary, temporary.open("wb") as kept:
        if not path.is_file():
            return
        with path.open("rb") as file:
            newest = newest_step(file, before)
            for text in file:
                line = parse_line(text)
                if line is not None and line["step"] < before and stays(line, newest):
                    kept.write(text if text.endswith(b"\n") else text + b"\n")


def _from_the_end(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, the last one first, a chunk in memory at a time."""
    end, rest = file.seek(0, os.SEEK_END), b""
    while end > 0:
        start = max(0, end - _CHUNK_BYTES)
        file.seek(start)
        rest, *lines = (file.read(end - start) + rest).split(b"\n")
        yield from reversed(lines)
        end = start
    yield rest
