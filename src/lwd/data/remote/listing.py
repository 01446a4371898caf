"""What a data folder says of itself to those who read it from afar: `FILES`, and of each split `SHARDS`.

`FILES` lists the small files with size and checksum; `SHARDS` of a split its shards, too, with the shapes of their
tensors and with all labels, so that a data set is opened without fetching a shard.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field, NonNegativeInt, model_validator

from lwd.data.encoded import MANIFEST, read_manifest
from lwd.data.format import LABELS, Shard, is_shard, open_shard, shard_files
from lwd.data.remote.folder import Entry
from lwd.errors import UserError
from lwd.files import checksum, write_json
from lwd.images.walk import files_in, folders_in
from lwd.records import Record

FILES, SHARDS = "files.json", "index.json"

_PART = r"[^/\\:\x00-\x1f.][^/\\:\x00-\x1f]*"
_Part = Annotated[str, Field(pattern=f"^{_PART}$", max_length=200)]
_Name = Annotated[str, Field(pattern=f"^{_PART}(/{_PART})?$", max_length=400)]
"""A file of the folder or of one in it: nothing hidden, and no way out."""
_Bytes = Annotated[int, Field(ge=0, le=2**44)]
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
                  torch.int8, torch.uint8, torch.bool)
}  # fmt: skip


class ListedFile(Entry):
    """One file's size and checksum."""

    bytes: _Bytes
    sha256: _Sha256


class FileList(Record):
    """The content of `FILES`."""

    what: ClassVar[str] = "a list of a data folder's files"
    remedy: ClassVar[str] = "make it again by `lwd data index`"

    format: Literal["lwd.files/1"]
    files: dict[_Name, ListedFile]


class ListedShard(ListedFile):
    """A shard: (dtype, shape) of each tensor, and its labels."""

    tensors: dict[str, tuple[str, tuple[NonNegativeInt, ...]]]
    labels: tuple[Annotated[int, Field(ge=-(2**63), lt=2**63)], ...]

    @model_validator(mode="after")
    def _tensors_fit_into_the_file(self) -> Self:
        for key, (dtype, shape) in self.tensors.items():
            if dtype not in _DTYPES or math.prod(shape) * _DTYPES[dtype].itemsize > self.bytes:
                raise ValueError(f"{key!r} of {dtype} {list(shape)} cannot be in {self.bytes} bytes")
        return self

    def head(self) -> Shard:
        """The shard without what is in it: tensors on the device "meta", and the labels."""
        kinds = {key: (shape, _DTYPES[dtype]) for key, (dtype, shape) in self.tensors.items()}
        empty = {key: torch.empty(shape, dtype=dtype, device="meta") for key, (shape, dtype) in kinds.items()}
        return empty | {LABELS: torch.tensor(self.labels, dtype=torch.int64)}

    def matches(self, shard: Shard) -> bool:
        """Whether an opened shard is the one that is listed."""
        return _tensors(shard) == self.tensors and LABELS in shard and shard[LABELS].tolist() == list(self.labels)


class ShardList(Record):
    """The content of `SHARDS`: the shards of a split by file name."""

    what: ClassVar[str] = "a list of shards"
    remedy: ClassVar[str] = "make it again by `lwd data index`"

    format: Literal["lwd.shards/1"]
    shards: Annotated[dict[_Part, ListedShard], Field(min_length=1)]


class Listing(NamedTuple):
    """The lists that were ``written``, and the ``links`` that are not in them."""

    written: list[Path]
    links: list[Path]


def write_listing(folder: Path) -> Listing:
    """Write `SHARDS` of every split of a data folder, then `FILES`.

    Checksums of shards are taken from the manifest where it has them. What is listed is copied elsewhere, so links are
    not, wherever they lead. Raises UserError where there are no splits, and where a split or shard is a link.
    """
    splits = [name for name in folders_in(folder) if files_in(folder / name, is_shard)]
    needed = [folder / name for name in splits]
    needed += [file for split in splits for file in shard_files(folder / split)]
    if linked := [path for path in needed if path.is_symlink()]:
        raise UserError(f"{linked[0]}: is a link, which is not followed; put there what it leads to, and list it again")
    if not splits:
        raise UserError(f"{folder}: no folder with *.safetensors shards in here, such as train")
    manifest = read_manifest(folder).splits if (folder / MANIFEST).is_file() else {}
    made = []
    for split in splits:
        known = {shard.file: shard.sha256 for shard in manifest[split].shards} if split in manifest else {}
        rows = {file.name: _listed(file, known.get(file.name)) for file in shard_files(folder / split)}
        made.append(folder / split / SHARDS)
        write_json(made[-1], {"format": "lwd.shards/1", "shards": rows})
    small = [*files_in(folder, lambda name: name != FILES)]
    small += [file for split in splits for file in files_in(folder / split, lambda name: not is_shard(name))]
    files = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": checksum(file)}
        for file in small
        if not file.is_symlink()
    }
    made.append(folder / FILES)
    write_json(made[-1], {"format": "lwd.files/1", "files": files})
    return Listing(made, [file for file in small if file.is_symlink()])


def _listed(file: Path, sha256: str | None) -> dict[str, object]:
    shard = open_shard(file)
    labels = shard.get(LABELS)
    if labels is None or labels.ndim != 1 or labels.is_floating_point():
        raise UserError(f"{file}: no {LABELS!r} (N,) of whole numbers in it")
    size = file.stat().st_size
    return {
        "bytes": size,
        "sha256": sha256 or checksum(file),
        "tensors": _tensors(shard),
        "labels": labels.tolist(),
    }


def _tensors(shard: Shard) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        key: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for key, tensor in sorted(shard.items())
        if key != LABELS
    }
