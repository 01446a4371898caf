"""A data folder at a URL as one here: its small files beside each other, its shards as they are needed."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from lwd.data.remote.cache import Cache
from lwd.data.remote.folder import RemoteFolder
from lwd.data.remote.listing import FILES, SHARDS, FileList, ShardList
from lwd.data.remote.shards import RemoteShards
from lwd.errors import UserError, call
from lwd.files import atomic_path, parse_json, write_text
from lwd.records import as_record, read_record

_LIST_BYTES = 2**26
"""No `FILES` is larger."""


class Mirror:
    """The data at a URL; ``path`` has its small files, in ``cache``, which holds ``limit`` bytes of shards.

    The folder's name is the checksum of `FILES`, so that other data get another one. What is missing there, or of
    another length, since someone tidied up, is fetched again. Errors about what is in there name the URL. Raises
    UserError for data without `FILES`, for small files over ``limit``, and for whatever cannot be fetched or is not
    what the list says.
    """

    def __init__(self, remote: RemoteFolder, cache: str | Path, limit: int) -> None:
        cache = Path(cache)
        self.remote, self._cache = remote, Cache(cache / "shards", limit)
        content = remote.read(FILES, _LIST_BYTES)
        if content is None:
            raise UserError(
                f"{remote.shown}: no {FILES}; `lwd encode` writes it at its end, `lwd data index` into other data"
            )
        where = f"{remote.shown}/{FILES}"
        listed = as_record(parse_json(content, where), FileList, where).files
        self.path = cache / "data" / hashlib.sha256(content).hexdigest()[:16]
        call(str(self.path), remote.shown)
        lacking = {name: entry for name, entry in listed.items() if not _has(self.path / name, entry.bytes)}
        if (self.path / FILES).is_file() and not lacking:
            return
        if (total := sum(entry.bytes for entry in listed.values())) > limit:
            raise UserError(f"{where}: lists {total} bytes of small files, over data.cache_gb; choose more")
        for name, entry in lacking.items():
            with atomic_path(self.path / name) as temporary:
                remote.download(name, entry, temporary)
        write_text(self.path / FILES, content.decode())  # last: with it the mirror is whole

    def split(self, name: str) -> RemoteShards:
        """The shards of one split; raises UserError where there is none."""
        if not (self.path / name / SHARDS).is_file():
            raise UserError(f"{self.remote.shown}/{name}: no shards there")
        entries = read_record(self.path / name / SHARDS, ShardList).shards
        return RemoteShards(self.remote, {f"{name}/{file}": entry for file, entry in entries.items()}, self._cache)


def _has(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size


def cache_folder() -> Path:
    """$LWD_CACHE, else the folder ``lwd`` of the user's cache."""
    if folder := os.environ.get("LWD_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lwd"


@lru_cache(maxsize=4)
def mirror(url: str, cache: Path | None, limit: int) -> Mirror:
    """The data at ``url``, looked up once a process; ``cache``: None is `cache_folder`."""
    return Mirror(RemoteFolder(url), cache or cache_folder(), limit)
