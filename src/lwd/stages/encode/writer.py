"""Shards written behind the encoders' back: one at a time in a thread, each with a record that says it is whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor

from lwd.data.format import shard_path
from lwd.data.remote.publish import Publisher
from lwd.data.writing import write_shard
from lwd.encoders.composite import Encoded
from lwd.files import checksum, write_json
from lwd.groups import Layout
from lwd.records import Record, read_record
from lwd.runtime.background import Background


def record_path(folder: Path, number: int) -> Path:
    """Where the record of a shard lies: its images, labels, checksum, and what was skipped. Written after the shard."""
    return shard_path(folder, number).with_suffix(".json")


class ShardRecord(Record):
    """The record of a shard: its file, None where no image could be read; images by label; (name, error) of the rest;
    and of how many images the first of several frames was taken."""

    what: ClassVar[str] = "the record of a shard"
    remedy: ClassVar[str] = "remove it and start lwd encode again, which makes that shard again"

    file: str | None
    images: NonNegativeInt
    labels: dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], NonNegativeInt]
    sha256: str
    skipped: tuple[tuple[str, str], ...]
    animated: NonNegativeInt = 0


class ShardWriter(Background):
    """Writes finished shards in a thread, so that the encoders go on, and copies them to where they are published."""

    def __init__(self, folder: Path, layout: Layout, publisher: Publisher | None) -> None:
        super().__init__("shard-writer")
        self._folder, self._layout, self._publisher = folder, layout, publisher

    def put(
        self,
        number: int,
        parts: Sequence[tuple[Encoded, Encoded | None]],
        labels: Tensor,
        skipped: Iterable[tuple[str, str]],
        animated: int,
    ) -> None:
        """Hand over shard ``number``: batches of (images, mirrored images or None), labels (N,), (name, error) pairs,
        and how many images are the first of several frames."""
        self.start(self._write, number, list(parts), labels, {"skipped": list(skipped), "animated": animated})

    def _write(
        self, number: int, parts: list[tuple[Encoded, Encoded | None]], labels: Tensor, facts: dict[str, Any]
    ) -> None:
        path, record = shard_path(self._folder, number), record_path(self._folder, number)
        if not len(labels):
            write_json(record, {"file": None, "images": 0, "labels": {}, "sha256": "", **facts})
            return
        latents, features = _join([plain for plain, _ in parts])
        twins = [twin for _, twin in parts if twin is not None]
        flipped, features_flipped = _join(twins) if twins else (None, None)
        write_shard(path, self._layout, latents, labels, flipped, features, features_flipped)
        values, counts = torch.unique(labels, return_counts=True)
        per_label = {str(value): count for value, count in zip(values.tolist(), counts.tolist(), strict=True)}
        digest = checksum(path)
        row = {"file": path.name, "images": len(labels), "labels": per_label, "sha256": digest}
        write_json(record, {**row, **facts})
        if self._publisher is not None:
            self._publisher.shard(path, digest)


def shards_of(count: int, shard_images: int) -> list[range]:
    """Which of ``count`` source images make each shard."""
    return [range(start, min(start + shard_images, count)) for start in range(0, count, shard_images)]


def read_shard_record(folder: Path, number: int) -> ShardRecord | None:
    """The record of a shard that is whole, else None."""
    path = record_path(folder, number)
    return read_record(path, ShardRecord) if path.is_file() else None


def _join(side: Sequence[Encoded]) -> tuple[dict[str, Tensor], Tensor | None]:
    groups = {name: torch.cat([part.groups[name] for part in side]) for name in side[0].groups}
    features = [part.features for part in side if part.features is not None]
    return groups, torch.cat(features) if features else None
