"""Small pictures, and files that hold them, for the tests of image sources."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """An RGB picture of random pixels, so that a shift by one is seen."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def png(seed: int) -> bytes:
    """A PNG of 5 x 4 pixels, another one for each seed."""
    return encoded(noise(5, 4, seed))


def fill(folder: Path, *names: str) -> Path:
    """PNGs of those names, the first of seed 0, the next of seed 1."""
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(seed))
    return folder


def pack(path: Path, members: dict[str, bytes], kind: int = tarfile.PAX_FORMAT) -> Path:
    """A tar file of those members, in that order."""
    with tarfile.open(path, "w", format=kind) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path
