"""A folder of shards by their checksum, bounded in bytes: the least recently used ones leave. Processes share it."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lwd.data.format import Shard, open_shard
from lwd.data.remote.folder import Entry
from lwd.files import atomic_path, remove

_OURS = re.compile(r"\.?([0-9a-f]{64})\.safetensors(\.\d+\.tmp)?")
"""A shard, or one that is being fetched."""
_PAUSE_S = 0.05
"""Between two looks for room."""


@dataclass(frozen=True)
class Cache:
    """At most ``limit`` bytes of shards in ``folder``, those on their way included; what is mapped stays readable.

    What has a shard's name is whole and checked. A shard is fetched by one process, for which others wait.
    """

    folder: Path
    limit: int

    def shard(self, entry: Entry, fetch: Callable[[Path], None], name: str | None = None) -> Shard:
        """The shard of ``entry``, mapped; where it is not here ``fetch`` writes it to a path. Errors say ``name``."""
        path = self.folder / f"{entry.sha256}.safetensors"
        with locked(self._lock(entry.sha256)):
            if path.is_file():
                os.utime(path)
                return open_shard(path, name)
            with ExitStack() as room:
                with atomic_path(path) as temporary:
                    self._reserve(entry, temporary)
                    fetch(temporary)
                    shard = open_shard(temporary, name)
                    room.enter_context(locked(self.room))  # who counts sees a file under one name, and not under none
                return shard

    @property
    def room(self) -> Path:
        """The lock of who counts the shards' bytes, or changes what they come to."""
        return self.folder / "locks" / "room"

    def _lock(self, sha256: str) -> Path:
        return self.folder / "locks" / sha256

    def _reserve(self, entry: Entry, temporary: Path) -> None:
        """Make ``temporary`` as long as the shard of ``entry``, whose lock is held, once there is room for it.

        Nobody waits with the lock `room`: those who are waited for may want it themselves.
        """
        self._remove(entry.sha256)  # what an earlier try left
        while True:
            with locked(self.room):
                if self._make_room(entry.bytes):
                    with temporary.open("wb") as file:
                        file.truncate(entry.bytes)  # it counts from now on
                    return
            time.sleep(_PAUSE_S)

    def _make_room(self, size: int) -> bool:
        """Remove the least recently used shards, and what killed processes left, until ``size`` bytes fit.

        What others are fetching or opening stays; False where that leaves no room.
        """
        for sha256, _ in self._oldest_first():
            if self._fits(size):
                return True
            with locked(self._lock(sha256), wait=False) as free:
                if free:
                    self._remove(sha256)
        return self._fits(size)

    def _fits(self, size: int) -> bool:
        return size + sum(other for _, other in self._oldest_first()) <= self.limit

    def _remove(self, sha256: str) -> None:
        for path in self.folder.glob(f"*{sha256}*"):
            remove(path)

    def _oldest_first(self) -> list[tuple[str, int]]:
        """The checksum and size of each shard, by the time of its last use."""
        found = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # renamed or removed meanwhile
                if match := _OURS.fullmatch(path.name):
                    status = path.stat()
                    found.append((status.st_mtime_ns, match[1], status.st_size))
        return [(sha256, size) for _, sha256, size in sorted(found)]


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold ``path`` against other threads and processes; without ``wait`` yield whether that was possible at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
