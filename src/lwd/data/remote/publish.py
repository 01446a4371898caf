"""Encoded data on its way to a URL: each shard when it is whole, the rest at the end, the list of all last."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lwd.data.remote.folder import RemoteFolder
from lwd.data.remote.listing import FILES, SHARDS, FileList, ShardList, write_listing
from lwd.errors import UserError
from lwd.files import parse_json, read_json
from lwd.records import read_record

SUM = ".sha256"
"""Behind a shard's name: the file with its checksum."""
_BYTES = 2**26
"""No list or recipe is larger."""


@dataclass(frozen=True)
class Publisher:
    """Copies the data in ``folder`` to ``remote``; ``recipe`` is the name of the file in it that decides its shards.

    What was begun under the same recipe is gone on with: shards that are there are not sent again. Each has its SHA-256
    beside it, written after it, since another machine's shard of the same recipe and size may differ in its last bits.
    """

    folder: Path
    remote: RemoteFolder
    recipe: str

    def begin(self) -> None:
        """Raise UserError where other data is there; leave the recipe there."""
        theirs = self.remote.read(self.recipe, _BYTES)
        if theirs is None and self.remote.read(FILES, _BYTES) is None:
            self.remote.upload(self.folder / self.recipe, self.recipe)
        elif theirs is None or parse_json(theirs, self.remote.shown) != read_json(self.folder / self.recipe):
            raise UserError(f"{self.remote.shown}: holds other data; choose another data.path, or remove it")

    def shard(self, file: Path, sha256: str) -> None:
        """Copy a shard that is whole, unless it is there."""
        name = file.relative_to(self.folder).as_posix()
        if self.remote.read(name + SUM, len(sha256)) != sha256.encode():
            self.remote.upload(file, name)
            self.remote.write(name + SUM, sha256.encode())

    def finish(self) -> bool:
        """Copy all that is not there yet, `FILES` last, which is written where it is missing; False: all was there."""
        if not (self.folder / FILES).is_file():
            write_listing(self.folder)
        listed = self.remote.read(FILES, _BYTES)
        if listed is not None and parse_json(listed, self.remote.shown) == read_json(self.folder / FILES):
            return False
        names = read_record(self.folder / FILES, FileList).files
        for split in sorted(Path(name).parent for name in names if Path(name).name == SHARDS):
            for shard, listed_shard in read_record(self.folder / split / SHARDS, ShardList).shards.items():
                self.shard(self.folder / split / shard, listed_shard.sha256)
        for name in names.keys() - {self.recipe}:
            self.remote.upload(self.folder / name, name)
        self.remote.upload(self.folder / FILES, FILES)
        return True
