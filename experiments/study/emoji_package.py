"""The pictures in an npm package of emoji-data (github.com/iamcal/emoji-data), read from the .tgz as npm packs it.

Nothing is unpacked to disk: members are looked up by their exact names, and all sizes are checked before use.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, TypeAdapter, ValidationError

from lwd.errors import UserError
from lwd.images.decode import ImageError, decode

Vendor = Literal["google", "twitter"]
VENDORS: tuple[Vendor, ...] = ("google", "twitter")
VERSION = "16.0.0"
SIZE = 64
"""Height and width of a picture, in pixels."""

PACKAGE_LIMIT_BYTES, JSON_LIMIT_BYTES, PICTURE_LIMIT_BYTES = 2**28, 2**24, 2**16
"""Of a package unpacked, a JSON file and a picture; the real ones reach 79e6, 1.4e6 and 9216."""


class Variation(BaseModel):
    """One picture's entry: its code points, joined by "-", its file's name, and who has drawn it."""

    unified: str
    image: str
    has_img_google: bool
    has_img_twitter: bool

    def drawn_by(self, vendor: Vendor) -> bool:
        """Whether the vendor's package has the picture."""
        return {"google": self.has_img_google, "twitter": self.has_img_twitter}[vendor]


class Emoji(Variation):
    """An emoji of emoji.json, with its skin tones by their code points."""

    category: str
    sort_order: int
    skin_variations: dict[str, Variation] = {}


class _Package(BaseModel):
    name: str
    version: str


@dataclass(frozen=True)
class Drawn:
    """An emoji and its pictures by one vendor, those of its skin tones after its own: (n, 64, 64, 4) uint8, RGBA."""

    emoji: Emoji
    pictures: NDArray[np.uint8]


def package_file(vendor: Vendor) -> str:
    """The name that ``npm pack emoji-datasource-VENDOR@VERSION`` gives its file."""
    return f"emoji-datasource-{vendor}-{VERSION}.tgz"


def read_package(folder: Path, vendor: Vendor) -> list[Drawn]:
    """All that emoji.json lists for the vendor, in its order.

    Raises UserError where the package is absent, damaged, another one, or lacks a picture of 64x64 pixels.
    """
    path = folder / package_file(vendor)
    if not path.is_file():
        name = f"emoji-datasource-{vendor}@{VERSION}"
        raise UserError(f"{folder}: no {path.name}; `npm pack {name}` fetches it")
    with _unpacked(path) as archive:
        members = _members(archive, path)
        about = _parse(TypeAdapter(_Package), _read(archive, members, "package.json", JSON_LIMIT_BYTES, path), path)
        if (about.name, about.version) != (f"emoji-datasource-{vendor}", VERSION):
            raise UserError(f"{path}: is {about.name}@{about.version}, needed is emoji-datasource-{vendor}@{VERSION}")
        entries = _parse(TypeAdapter(list[Emoji]), _read(archive, members, "emoji.json", JSON_LIMIT_BYTES, path), path)
        drawn = []
        for emoji in entries:
            present = [one for one in (emoji, *emoji.skin_variations.values()) if one.drawn_by(vendor)]
            names = [f"img/{vendor}/{SIZE}/{one.image}" for one in present]
            pictures = [_picture(_read(archive, members, n, PICTURE_LIMIT_BYTES, path), f"{path}: {n}") for n in names]
            if pictures:
                drawn.append(Drawn(emoji, np.stack(pictures)))
    return drawn


def _unpacked(path: Path) -> tarfile.TarFile:
    try:
        with gzip.open(path) as file:  # whole and at once: reading to the end checks the CRC
            data = file.read(PACKAGE_LIMIT_BYTES + 1)
        if len(data) > PACKAGE_LIMIT_BYTES:
            raise UserError(f"{path}: unpacks to more than {PACKAGE_LIMIT_BYTES} bytes; not the package")
        return tarfile.open(fileobj=io.BytesIO(data), mode="r:")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a whole gzip file ({error}); fetch it again") from error
    except tarfile.TarError as error:
        raise UserError(f"{path}: not a tar file ({error}); fetch it again") from error


def _members(archive: tarfile.TarFile, path: Path) -> dict[str, tarfile.TarInfo]:
    """The plain files by name."""
    try:
        return {member.name: member for member in archive if member.isreg()}
    except (tarfile.TarError, ValueError) as error:
        raise UserError(f"{path}: a damaged tar file ({error}); fetch it again") from error


def _read(
    archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo], name: str, limit_bytes: int, path: Path
) -> bytes:
    """The content of package/NAME."""
    member = members.get(f"package/{name}")
    if member is None:
        raise UserError(f"{path}: package/{name} is missing; fetch the package again")
    if member.size > limit_bytes:
        raise UserError(f"{path}: package/{name} has {member.size} bytes, more than the {limit_bytes} allowed")
    file = archive.extractfile(member)
    data = file.read() if file is not None else b""
    if len(data) != member.size:
        raise UserError(f"{path}: package/{name} is cut short; fetch the package again")
    return data


T = TypeVar("T")


def _parse(form: TypeAdapter[T], data: bytes, path: Path) -> T:
    try:
        content: Any = json.loads(data)
        return form.validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise UserError(f"{path}: its JSON is not emoji-data's: {where}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: holds malformed JSON ({error})") from error


def _picture(data: bytes, where: str) -> NDArray[np.uint8]:
    """A PNG file -> (64, 64, 4) uint8, RGBA. The header is looked at first, so that no huge picture is decoded."""
    if len(data) < 24 or data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        raise UserError(f"{where}: not a PNG file")
    width, height = struct.unpack(">II", data[16:24])
    if (width, height) != (SIZE, SIZE):
        raise UserError(f"{where}: {width}x{height} pixels, not {SIZE}x{SIZE}")
    try:
        return np.asarray(decode(io.BytesIO(data), where, ("PNG",)).image.convert("RGBA"))
    except ImageError as error:
        raise UserError(str(error)) from error
