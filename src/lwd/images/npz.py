"""Images as ADM's evaluator reads them: an npz with ``arr_0``, uint8 (N, H, W, 3), and labels as ``arr_1``."""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lwd.errors import UserError
from lwd.files import atomic_path

IMAGES, LABELS = "arr_0", "arr_1"
_UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
"""RuntimeError: encrypted; its NotImplementedError: packed in a way that Python does not know."""
_MOST_PACKED = 1032
"""Bytes that deflate, as numpy packs, makes of one at the most."""
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)


def write_npz(
    path: Path, blocks: Iterable[NDArray[np.uint8]], labels: NDArray[np.int64], size: tuple[int, int]
) -> None:
    """Write one image block (n, H, W, 3) after the other, atomically; ``size``: (H, W), labels (N,).

    Memory holds one block at a time, and equal content gives equal bytes: `numpy.savez` would need all images at once.
    Raises ValueError where the blocks do not hold one image per label.
    """
    shape, written = (len(labels), *size, 3), 0
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        with archive.open(zipfile.ZipInfo(f"{IMAGES}.npy", _FIRST_DAY), "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for block in blocks:
                if block.dtype != np.uint8 or block.shape[1:] != shape[1:]:
                    raise ValueError(f"expected uint8 images of shape {shape[1:]}, got {block.dtype} {block.shape[1:]}")
                file.write(np.ascontiguousarray(block).tobytes())
                written += len(block)
        if written != len(labels):
            raise ValueError(f"{written} images for {len(labels)} labels")
        with archive.open(zipfile.ZipInfo(f"{LABELS}.npy", _FIRST_DAY), "w") as file:
            np.lib.format.write_array(file, labels, allow_pickle=False)


def read_npz(path: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of an npz by name, mapped from the file where they are not compressed.

    Raises UserError where it is missing, cut short, locked, or holds anything but plain arrays. What is mapped is not
    compared with its checksum: see `verify_npz`.
    """
    with _archive(path) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        return {info.filename.removesuffix(".npy"): _member(path, archive, info) for info in members}


def verify_npz(path: Path) -> None:
    """Read everything once, in chunks; raises UserError where the zip's checksums say that a byte has changed."""
    with _archive(path) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"Bad CRC-32 for file {damaged!r}")  # in zipfile's own words, which it uses for small ones


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Whatever is wrong with the file is one line."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except _UNREADABLE as error:
        raise UserError(f"{path}: not a readable npz ({' '.join(str(error).split())})") from error


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[np.generic]:
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        header = file.tell()
    if dtype.hasobject:
        raise ValueError(f"{info.filename} holds Python objects")
    if header + math.prod(shape) * dtype.itemsize != info.file_size:  # also before memory is asked for
        raise ValueError(f"{info.filename} is cut short")
    if info.compress_type != zipfile.ZIP_STORED:
        if info.file_size > _MOST_PACKED * (info.compress_size + 64):  # before memory is asked for
            raise ValueError(f"{info.filename} is to unpack to {info.file_size} bytes from {info.compress_size}")
        with archive.open(info) as file:
            array: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
            return array
    with path.open("rb") as raw:  # the local header's extra field may differ in length from the directory's
        raw.seek(info.header_offset + 26)
        name_length, extra_length = np.frombuffer(raw.read(4), "<u2")
    start = info.header_offset + 30 + int(name_length) + int(extra_length) + header
    if start + info.file_size - header > path.stat().st_size:
        raise ValueError(f"{info.filename} is cut short")
    if not math.prod(shape):
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")
