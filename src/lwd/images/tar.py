"""Images in WebDataset-style tar files, read at random: `key.jpg` with `key.cls`, or with "label" in `key.json`.

Python's tarfile lists the members once, 16 us each; after that an image is one `pread` at its offset.
"""

from __future__ import annotations

import glob
import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from lwd.errors import UserError
from lwd.files import parse_json
from lwd.images.decode import ImageError, Picture, decode, is_image, unreadable
from lwd.images.source import ImageSource, parse_label
from lwd.images.walk import LeftOut

BLOCK_BYTES = tarfile.BLOCKSIZE
HEADER_BYTES, LABEL_BYTES = 2**20, 2**20
"""The most that a header with its long names, and a label with what else its JSON says, may have."""


class TarSource(ImageSource):
    """The images of one or several tar files: in the order of the files, then of their place in the file.

    The key of a member is its path up to the first dot of the file name (the WebDataset convention). Where a key has
    both `.cls` and `.json`, `.cls` counts. Further members of a key that has an image (a caption, a map) are left
    alone; those of no image are left out and listed.
    """

    def __init__(self, pattern: str) -> None:
        """List the tar files that ``pattern`` names (see `expand`).

        Raises UserError for an image without label or with two of a kind, a label without image, an unreadable label,
        links, sizes that cannot be, and a file that is compressed, cut short or damaged.
        """
        self.paths = expand(pattern)
        common = Path(os.path.commonpath([path.parent for path in self.paths]))
        names: list[str] = []
        labels: list[int] = []
        places: list[tuple[int, int, int]] = []
        left_out: list[LeftOut] = []
        for number, path in enumerate(self.paths):
            file = path.relative_to(common)
            images, others = _images(path)
            left_out += [LeftOut(f"{file}:{name}", "neither an image nor of one") for name in others]
            for image in images:
                names.append(f"{file}:{image.name}")
                labels.append(image.label)
                places.append((number, image.offset, image.size))
        self._places = np.array(places, dtype=np.int64).reshape(-1, 3)
        super().__init__(names, labels, None, left_out)
        if not names:
            raise UserError(f"{pattern}: no images in {len(self.paths)} tar file(s)")

    def read(self, index: int) -> Picture:
        """See `ImageSource.read`. The file is opened for each image, so that processes share no offset."""
        name = self.name(index)
        number, offset, size = (int(value) for value in self._places[index])
        try:
            descriptor = os.open(self.paths[number], os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.pread(descriptor, size, offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise unreadable(error, name) from error
        if len(data) != size:
            raise ImageError(f"{name}: {len(data)} of {size} bytes; the tar file is shorter than when it was listed")
        return decode(BytesIO(data), name)

    def sizes(self) -> NDArray[np.int64]:
        """See `ImageSource.sizes`."""
        return self._places[:, 2]


def expand(pattern: str) -> list[Path]:
    """The files of a path, a glob ("*", sorted) or a range ("train-{0000..0146}.tar"); raises UserError for none."""
    paths: list[Path] = []
    for part in _ranges(pattern):
        found = [Path(part)] if Path(part).is_file() else sorted(Path(name) for name in glob.glob(part))  # noqa: PTH207
        if not found:
            raise UserError(f"{part}: no such tar file")
        if strange := [path for path in found if not path.is_file()]:
            raise UserError(f"{strange[0]}: no tar file, but a folder, a pipe or a broken link")
        paths += found
    return paths


def _ranges(pattern: str) -> Iterator[str]:
    """The pattern with each {first..last} replaced by each of its numbers, padded with zeros to the first's width."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if match is None:
        yield pattern
        return
    first, last = match.groups()
    if int(first) > int(last):
        raise UserError(f"{pattern}: {match[0]} counts down")
    for number in range(int(first), int(last) + 1):
        yield from _ranges(f"{pattern[: match.start()]}{number:0{len(first)}}{pattern[match.end() :]}")


@dataclass(frozen=True)
class _Image:
    name: str
    offset: int
    size: int
    label: int


@dataclass
class _Sample:
    """What the members of one key amount to."""

    image: tuple[str, int, int] | None = None
    cls: int | None = None
    json: int | None = None
    other: str | None = None
    """A further image of the sample, such as `key.mask.png`."""
    further: str | None = None
    """A member that is neither."""


def _images(path: Path) -> tuple[list[_Image], list[str]]:
    """The labelled images of one tar file, and one member of each key that is of no image; raises UserError."""
    images, others = [], []
    for key, sample in _samples(path).items():
        label = sample.json if sample.cls is None else sample.cls
        if sample.image is None:
            if sample.other is not None:
                raise UserError(f"{path}: {sample.other!r}: the key is {key!r}, up to the first dot, and has no image")
            if label is not None:
                raise UserError(f"{path}: {key!r} has a label but no image")
            others += [sample.further] if sample.further is not None else []
            continue
        if label is None:
            raise UserError(f'{path}: {sample.image[0]!r} has no label; add {key}.cls, or {key}.json with a "label"')
        images.append(_Image(*sample.image, label))
    return images, others


class _Headers:
    """A tar file as tarfile reads its headers: each read is bounded, whatever size a header claims for the next."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        """Raises TarError for more than `HEADER_BYTES`."""
        if not 0 <= size <= HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


def _samples(path: Path) -> dict[str, _Sample]:
    samples: dict[str, _Sample] = {}
    end = 0
    try:
        with path.open("rb") as file, tarfile.open(fileobj=_Headers(file), mode="r:") as tar:  # type: ignore[call-overload]
            length = os.fstat(file.fileno()).st_size
            while (member := tar.next()) is not None:
                tar.members.clear()  # tarfile would keep a record of each
                if member.size < 0 or (member.isreg() and member.size > length - member.offset_data):
                    raise tarfile.ReadError(f"{member.name!r} is to have {member.size} bytes, the file has {length}")
                end = tar.offset
                _add(samples, path, member, file.fileno())
            _check_end(path, file.fileno(), end)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"{path}: not a whole, uncompressed tar file ({error})") from error
    return samples


def _add(samples: dict[str, _Sample], path: Path, member: tarfile.TarInfo, descriptor: int) -> None:
    """Enter one member; raises UserError for a second one of its kind, a link, or a label that cannot be read."""
    folder, slash, file = member.name.rpartition("/")
    stem, dot, extension = file.partition(".")
    if member.isdir():
        return
    key = folder + slash + stem
    if not stem or not dot or not (extension in ("cls", "json") or is_image(file)):
        samples.setdefault(key if stem else member.name, _Sample()).further = member.name
        return
    where = f"{path}: {member.name!r}"
    if not member.isreg() or member.issparse():
        raise UserError(f"{where} is a link or a sparse file; pack the tar file with --dereference --hard-dereference")
    sample = samples.setdefault(key, _Sample())
    if "." in extension:
        sample.other = member.name
        return
    kind = extension if extension in ("cls", "json") else "image"
    if getattr(sample, kind) is not None:
        raise UserError(f"{where}: a second {kind} of {key!r}")
    if kind == "image":
        sample.image = (member.name, member.offset_data, member.size)
        return
    if member.size > LABEL_BYTES:
        raise UserError(f"{where}: a label of {member.size} bytes, more than the {LABEL_BYTES} that are read")
    text = os.pread(descriptor, member.size, member.offset_data)
    if kind == "cls":
        sample.cls = parse_label(text.decode(errors="replace"), where)
    else:
        sample.json = _json_label(text, where)
        sample.further = member.name


def _json_label(text: bytes, where: str) -> int | None:
    """The "label" of a JSON object, None if it has none."""
    data = parse_json(text, where)
    if not isinstance(data, dict) or "label" not in data:
        return None
    return parse_label(json.dumps(data["label"]), where)


def _check_end(path: Path, descriptor: int, end: int) -> None:
    """Refuse a file that does not end after its last member with blocks of zeros.

    Tarfile stops without a word at a damaged header, at the end of a file cut between members, and between two files
    strung together.
    """
    if len(os.pread(descriptor, BLOCK_BYTES, end)) < BLOCK_BYTES:
        raise UserError(f"{path}: cut short, it has no end-of-archive block; write it anew")
    while block := os.pread(descriptor, 1 << 20, end):
        if any(block):
            raise UserError(f"{path}: a damaged header, or a second archive, after byte {end}; write it anew")
        end += len(block)
