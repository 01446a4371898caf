"""The one way in which folders of pictures, shards and samples are listed, and its one rule (docs/data.md).

Taken is every file whose name is wanted, in the folder and those below it. Left out, and listed with the reason, is
what tools leave behind (hidden names and `LEFTOVERS`), what is no file (a pipe, a socket, a device: never opened) and
files of other names. Links are followed wherever they lead, but a folder is entered once: by its own name where it has
one in there, otherwise by the first link. So no link makes a loop.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lwd.errors import UserError

LEFTOVERS = frozenset(
    {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "Thumbs.db"}
    | {"desktop.ini", "Icon\r"}
)
"""What macOS, Windows and file servers put into folders, beside what is hidden (".DS_Store", "._x.png")."""

SEEN = "a link to a folder that is read already"
_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


class LeftOut(NamedTuple):
    """A file that is not taken, or a folder that is not entered ("name/"): its path below the root, and why."""

    name: str
    reason: str


class Walk(NamedTuple):
    """Paths below the root with "/" between their parts: the files folder by folder, folders and names sorted."""

    files: list[str]
    folders: list[str]
    """Those right in the root."""
    left_out: list[LeftOut]


def left_behind(name: str) -> bool:
    """Whether a file or folder of that name is a tool's, and no one's data."""
    return name.startswith(".") or name in LEFTOVERS


def walk(root: Path, wanted: Callable[[str], bool]) -> Walk:
    """The files at any depth whose name is ``wanted``. Raises UserError for a folder that cannot be listed.

    The order is that of torchvision's ImageFolder within a class: folders by their whole paths, then names.
    """
    found: dict[str, list[str]] = {}
    left_out: list[LeftOut] = []
    entered: set[tuple[int, int]] = set()
    waiting: list[str] = [""]
    links: list[str] = []
    while waiting or links:
        inside = waiting.pop() if waiting else links.pop(0)
        about = (root / inside).stat()
        if (about.st_dev, about.st_ino) in entered:
            left_out.append(LeftOut(f"{inside}/", SEEN))
            continue
        entered.add((about.st_dev, about.st_ino))
        found[inside] = []
        for entry in _entries(root / inside):
            name = f"{inside}/{entry.name}" if inside else entry.name
            if (reason := _refused(entry, wanted)) is not None:
                left_out.append(LeftOut(f"{name}/" if _is_folder(entry) else name, reason))
            elif not _is_folder(entry):
                found[inside].append(name)
            else:
                (links if entry.is_symlink() else waiting).append(name)
        links.sort()
    files = [name for folder in sorted(found) for name in sorted(found[folder])]
    return Walk(files, sorted(name for name in found if name and "/" not in name), sorted(left_out))


def files_in(folder: Path, wanted: Callable[[str], bool]) -> list[Path]:
    """The files right in a folder whose name is ``wanted``, by the same rule, sorted; none where there is no folder."""
    if not folder.is_dir():
        return []
    entries = [entry for entry in _entries(folder) if not _is_folder(entry)]
    return sorted(folder / entry.name for entry in entries if _refused(entry, wanted) is None)


def folders_in(folder: Path) -> list[str]:
    """The names of the folders right in a folder, by the same rule, sorted; none where there is no folder."""
    entries = _entries(folder) if folder.is_dir() else ()
    return sorted(entry.name for entry in entries if _is_folder(entry) and not left_behind(entry.name))


def summary(left_out: Iterable[tuple[str, str]]) -> str:
    """How many (name, reason) there are of each reason: "named .gif: 16; a pipe: 1"."""
    return "; ".join(f"{reason}: {count}" for reason, count in Counter(reason for _, reason in left_out).most_common())


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be listed ({error.strerror})") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _refused(entry: os.DirEntry[str], wanted: Callable[[str], bool]) -> str | None:
    """Why an entry is not taken, None if it is; nothing but links and what is no file costs a look at it."""
    if left_behind(entry.name):
        return "hidden, or left behind by a tool"
    if _is_folder(entry):
        return None
    try:
        if not entry.is_file():
            return _KINDS.get(stat.S_IFMT(entry.stat().st_mode), "no file")
    except OSError:
        return "a broken link" if entry.is_symlink() else "cannot be looked at"
    if not wanted(entry.name):
        ending = Path(entry.name).suffix
        return f"named {ending}" if ending else "named without an ending"
    return None
