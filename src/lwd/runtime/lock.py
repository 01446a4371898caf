"""One run at a time in a folder."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lwd.errors import UserError

LOCK = ".lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold ``folder`` (made where it is missing) for this process; raises UserError where another one works in it.

    A POSIX record lock: it goes with the process, however that ends, is not passed on to its children, such as the
    loader's workers, and holds over NFS where the server keeps locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(
                f"{folder}: in use by {file.read().strip() or 'another process'}; wait for its end, or choose another "
                "output"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
