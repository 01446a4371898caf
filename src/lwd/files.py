"""Files that are either whole or absent: write beside, fsync, rename."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lwd.errors import UserError
from lwd.scalars import as_url

_CHUNK_BYTES = 2**24
_PAGE_BYTES = 4096
BOUND_BYTES = 2**20
"""The most that `read_bounded` reads: no config, record or state of a checkpoint is nearly as long."""
_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Half a character of UTF-16, other than those that stand for the bytes of a file name."""
_UMASK = os.umask(0)
os.umask(_UMASK)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary sibling of ``path`` to write to (a file, or a folder made by the caller).

    On leaving the block normally it is flushed to disk and renamed to ``path``, replacing a file, folder or link there;
    on an error it is removed and ``path`` stays as it was. A file never replaces a folder: that raises UserError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    remove(temporary)
    try:
        yield temporary
        for file in [temporary] if temporary.is_file() else sorted(temporary.rglob("*")):
            if file.is_file():
                file.chmod(0o666 & ~_UMASK)  # safetensors keeps its files to their owner
                _fsync(file)
        if not temporary.exists():
            raise FileNotFoundError(f"nothing was written for {path}")
        if path.is_dir() and not temporary.is_dir():
            raise UserError(f"{path}: is a folder, which a file would replace; name a file")
        if path.is_dir() or (temporary.is_dir() and path.exists()):
            old = _set_aside(path)
            try:
                temporary.rename(path)
            except OSError:
                old.rename(path)
                raise
            remove(old)
        else:
            temporary.replace(path)
        _fsync(path.parent)
    except OSError as error:
        if str(error.filename).startswith(str(temporary)):  # people know the file by its own name
            error.filename = str(path) + str(error.filename)[len(str(temporary)) :]
        _name(error, path)
        raise
    finally:
        remove(temporary)


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """The block in which ``path`` is written in place; an error of the system that names no file gets its name."""
    try:
        yield
    except OSError as error:
        _name(error, path)
        raise


def _name(error: OSError, path: Path) -> None:
    if error.filename is None and error.errno is not None:
        error.filename = str(path)


def check_place(path: Path, where: str | None = None) -> None:
    """Raise UserError unless a file can be written at ``path``; for before the work whose result it is to hold.

    A page is written beside it, in the nearest folder that there is, and removed. The line starts with ``where``, by
    default the path.
    """
    if (url := as_url(str(path))) is not None:
        raise UserError(f"{url} is a URL, where a path of this machine is needed; data.path alone takes one")
    if path.is_dir():
        raise UserError(f"{where or path}: is a folder; name a file")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UserError(f"{where or path}: cannot be written, {above} is no folder")
    trial = above / _temporary(path).name
    try:
        try:
            trial.write_bytes(bytes(_PAGE_BYTES))
        finally:
            trial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{where or path}: cannot be written in {above} ({error.strerror}); choose another place"
        ) from error


def check_new_place(path: Path) -> None:
    """The same where nothing may be replaced: raises UserError, too, where there is something at ``path``."""
    if path.exists():
        raise UserError(f"{path}: exists already; remove it or choose another name")
    check_place(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8 under every locale."""
    with atomic_path(path) as temporary:
        temporary.write_text(printable(text), encoding="utf-8")


def read_text(path: Path) -> str:
    """A text file in UTF-8; raises UserError where it is none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 ({error})") from error


def read_bounded(path: Path) -> bytes:
    """The content of a file that may be anybody's: raises UserError for a link, a pipe or the like, or a longer one
    than `BOUND_BYTES`."""
    content, whole = _read(path, from_end=False)
    if not whole:
        raise UserError(f"{path}: longer than {BOUND_BYTES} bytes, which no such file is")
    return content


def read_end(path: Path) -> bytes:
    """The last `BOUND_BYTES` of a file, all of a shorter one; raises UserError for what is no file, or a link."""
    return _read(path, from_end=True)[0]


def _read(path: Path, from_end: bool) -> tuple[bytes, bool]:
    """As much as the bound allows, and whether that is all."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        what = "a link" if path.is_symlink() else error.strerror
        raise UserError(f"{path}: cannot be read ({what})") from error
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise UserError(f"{path}: is no file")
        if from_end:
            file.seek(max(0, about.st_size - BOUND_BYTES))
        content = file.read(BOUND_BYTES + 1)
    return content[:BOUND_BYTES], len(content) <= BOUND_BYTES


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's content, atomically."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def printable(text: str) -> str:
    """The text with file names' bytes that are not UTF-8 spelt out, as in "caf\\xe9.jpg"."""
    halves = _HALF.sub(lambda half: f"\\u{ord(half[0]):x}", text)
    return halves.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def write_json(path: Path, data: Any) -> None:
    """Write indented JSON atomically; NaN and infinity are refused."""
    write_text(path, to_json(data))


def to_json(data: Any) -> str:
    """Indented JSON; raises ValueError for NaN and infinity."""
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Parse a JSON file; raises UserError where it is missing or malformed."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    return parse_json(path.read_bytes(), str(path))


def parse_json(text: str | bytes, where: str) -> Any:
    """What JSON text, in UTF-8, stands for; raises UserError, beginning with ``where``, where it is malformed."""
    try:
        return json.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # ValueError: no UTF-8, no JSON, or a number of thousands of digits
        raise UserError(f"{where}: not valid JSON ({error})") from error


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def discard(folder: Path) -> None:
    """Remove a folder, set aside first so that an interrupted removal never leaves half of it under its name.

    Of a link only the link is removed, as by `remove`.
    """
    remove(_set_aside(folder))


def remove(path: Path) -> None:
    """Remove a file, a folder or, where it is a link, the link alone; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _set_aside(path: Path) -> Path:
    return path.rename(path.with_name(f".{path.name}.{os.getpid()}.old"))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
