"""One run at a time in a folder."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lwd.errors import UserError
from lwd.files import writing_to

LOCK = ".lock"
_FLOCK = {"linux": ("hhqqi4x", 0), "darwin": ("qqihh", 3)}
"""struct flock, and which of its fields says of what kind the lock is; 0 in the others means the whole file."""
_HOLDER = re.compile(r"\0*|process \d+( on [^\n]*\n?)?")
"""What a lock says, also one whose writing a kill or a power cut ended."""


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold ``folder`` (made where it is missing) for this process; raises UserError where another one works in it.

    A POSIX record lock: it goes with the process, however that ends, is not passed on to its children, such as the
    loader's workers, and holds over NFS where the server keeps locks. A link, or a file that no lock of ours wrote, is
    refused and left as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    with os.fdopen(_open(path), "r+", encoding="utf-8", errors="replace") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:  # POSIX allows both
            raise UserError(
                f"{folder}: in use by {file.readline(200).strip() or 'another process'}; wait for its end, or choose "
                "another output"
            ) from error
        if not _HOLDER.fullmatch(file.read(1000)):
            raise _foreign(path)
        with writing_to(path):
            file.seek(0)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        yield


def is_held(folder: Path) -> bool | None:
    """Whether another process than this one works in ``folder``, on any machine that shares its locks; None where that
    cannot be told. Only looks: a process that wants the lock meanwhile gets it.

    Not for a process that holds the lock itself: POSIX has it lose a file's lock with the first descriptor it closes.
    """
    if sys.platform not in _FLOCK:
        return None
    form, kind = _FLOCK[sys.platform]
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        asked = struct.pack(form, *(fcntl.F_WRLCK if field == kind else 0 for field in range(5)))
        found = struct.unpack(form, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return bool(found[kind] != fcntl.F_UNLCK)


def _open(path: Path) -> int:
    """A descriptor of the lock, made where it is missing; never of what a link points to, nor of a pipe or a device."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise _foreign(path) from error
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:  # a second name may be another file's
        os.close(descriptor)
        raise _foreign(path)
    return descriptor


def _foreign(path: Path) -> UserError:
    return UserError(f"{path}: a link, or something else that is no lock of ours; remove it, or choose another output")
