"""A folder of shards by their checksum, bounded in bytes: the least recently used ones leave. Processes share it."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lwd.data.format import Shard, open_shard
from lwd.data.remote.folder import Entry
from lwd.files import atomic_path, remove

_OURS = re.compile(r"\.?([0-9a-f]{64})\.safetensors(\.\d+\.tmp)?")
"""A shard, or one that is being fetched."""


@dataclass(frozen=True)
class Cache:
    """At most ``limit`` bytes of shards in ``folder``, those on their way included; what is mapped stays readable.

    What has a shard's name is whole and checked. A shard is fetched by one process, for which others wait.
    """

    folder: Path
    limit: int

    def shard(self, entry: Entry, fetch: Callable[[Path], None]) -> Shard:
        """The shard of ``entry``, mapped; where it is not here ``fetch`` writes it to a path."""
        path = self.folder / f"{entry.sha256}.safetensors"
        with _locked(self._lock(entry.sha256)):
            if path.is_file():
                os.utime(path)
                return open_shard(path)
            with atomic_path(path) as temporary:
                with _locked(self.folder / "locks" / "room"):
                    self._make_room(entry.bytes)
                    with temporary.open("wb") as file:
                        file.truncate(entry.bytes)  # it counts from now on
                fetch(temporary)
                return open_shard(temporary)

    def _lock(self, sha256: str) -> Path:
        return self.folder / "locks" / sha256[:2]

    def _make_room(self, size: int) -> None:
        """Remove the least recently used shards, and what a killed process left, until ``size`` more bytes fit."""
        found = [(path, path.stat(), match[1]) for path, match in self._files()]
        total = sum(status.st_size for _, status, _ in found)
        for path, status, sha256 in sorted(found, key=lambda one: one[1].st_mtime_ns):
            if total + size <= self.limit:
                return
            with _locked(self._lock(sha256), wait=False) as free:
                if free:  # else it is on its way, or just being opened
                    remove(path)
                    total -= status.st_size

    def _files(self) -> Iterator[tuple[Path, re.Match[str]]]:
        for path in self.folder.iterdir():
            if (match := _OURS.fullmatch(path.name)) and path.is_file():
                yield path, match


@contextmanager
def _locked(path: Path, wait: bool = True) -> Iterator[bool]:
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
