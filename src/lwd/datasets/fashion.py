"""Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv 1708.07747): 70 000 real 28x28 pictures of ten kinds of clothing.

Its four IDX files are read where Debian's package installs them, or from a copy that `import_files` has checked.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lwd.datasets.prepared import Images, Split, copy_path, read_prepared, write_prepared
from lwd.errors import UserError
from lwd.images.sheets import to_unit

NAME = "fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
BORDER = 2
"""Pixels of background on each side: 28x28 becomes 32x32, which patches and poolings divide."""

UINT8 = 0x08
"""IDX's code of the only type that MNIST's relatives use."""


@dataclass(frozen=True)
class IdxFile:
    """One IDX file of the set: its name, its shape, and the SHA-256 of its content unpacked."""

    name: str
    shape: tuple[int, ...]
    sha256: str


FILES: dict[Split, tuple[IdxFile, IdxFile]] = {
    "train": (
        IdxFile(
            "train-images-idx3-ubyte",
            (60_000, 28, 28),
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        IdxFile(
            "train-labels-idx1-ubyte", (60_000,), "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
        ),
    ),
    "heldout": (
        IdxFile(
            "t10k-images-idx3-ubyte",
            (10_000, 28, 28),
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        IdxFile(
            "t10k-labels-idx1-ubyte", (10_000,), "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
        ),
    ),
}
"""Images and labels of each split. The test part of the original is held out.

The digests are of Debian's files. With the gzip header of the original release put back (it named the file and the
time), those have the MD5 sums that the authors publish, all four.
"""


def fashion_mnist(split: Split) -> Images:
    """Images (N, 1, 32, 32) float32 in [-1, 1] on a background of -1, labels (N,) int64; N is 60 000 or 10 000.

    Taken from `copy_path` if `import_files` has been there, else from `DEBIAN_FOLDER`. Raises UserError if it is
    in neither place, or damaged.
    """
    if copy_path(NAME).is_file():
        images, labels = _read_copy(split)
    elif DEBIAN_FOLDER.is_dir():
        levels, labels = read_split(DEBIAN_FOLDER, split)
        images = to_unit(levels)
    else:
        raise UserError(
            "fashion-mnist is not on this machine: apt install dataset-fashion-mnist, "
            "or fetch its four IDX files and run lwd data fashion-mnist --from FOLDER"
        )
    return F.pad(images, [BORDER] * 4, value=-1.0), labels.long()


def _read_copy(split: Split) -> Images:
    remedy = f"run lwd data {NAME} again, or remove the file"
    try:
        images, labels = read_prepared(copy_path(NAME))[split]
    except UserError as error:
        raise UserError(f"{error}; {remedy}") from error
    if images.shape[1:] != (1, *FILES[split][0].shape[1:]):
        raise UserError(f"{copy_path(NAME)}: images of {tuple(images.shape[1:])} are not Fashion-MNIST's; {remedy}")
    return images, labels


def import_files(folder: Path) -> Path:
    """Check the four files in ``folder`` and keep them as one file, `copy_path`; raises UserError."""
    return write_prepared(copy_path(NAME), {split: read_split(folder, split) for split in FILES})


def read_split(folder: Path, split: Split) -> Images:
    """Images (N, 1, 28, 28) uint8 and labels (N,) uint8 as in the files; raises UserError."""
    images, labels = (read_idx(folder, file) for file in FILES[split])
    return images[:, None], labels


def read_idx(folder: Path, file: IdxFile) -> Tensor:
    """One IDX file, plain or with .gz: uint8 of its shape. Raises UserError where it is not exactly that file.

    The format (LeCun, yann.lecun.com/exdb/mnist): two zero bytes, the type, the number of dimensions, each dimension
    as a big-endian uint32, then the elements in row-major order.
    """
    path, data = _content(folder, file)
    magic, wanted = data[:4], bytes([0, 0, UINT8, len(file.shape)])
    if magic != wanted:
        raise UserError(f"{path}: magic number {magic.hex()!r}, {file.name} starts with {wanted.hex()!r}")
    header_bytes = 4 + 4 * len(file.shape)
    if len(data) < header_bytes:
        raise UserError(f"{path}: ends within its header, after {len(data)} bytes")
    shape = struct.unpack(f">{len(file.shape)}I", data[4:header_bytes])
    if shape != file.shape:
        raise UserError(f"{path}: holds {_by(shape)} bytes, {file.name} of Fashion-MNIST {_by(file.shape)}")
    elements = int(np.prod(shape))
    if len(data) != header_bytes + elements:
        raise UserError(f"{path}: {len(data) - header_bytes} bytes of data, its header says {elements}")
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise UserError(f"{path}: not Fashion-MNIST's content (its SHA-256 differs); another set, or a damaged copy")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=header_bytes).reshape(shape).copy())


def _content(folder: Path, file: IdxFile) -> tuple[Path, bytes]:
    """The path that was found and its unpacked bytes, at most one more than there should be: some unpack to
    terabytes."""
    plain, packed = folder / file.name, folder / f"{file.name}.gz"
    most = 4 + 4 * len(file.shape) + int(np.prod(file.shape)) + 1
    if plain.is_file():
        with plain.open("rb") as content:
            return plain, content.read(most)
    if not packed.is_file():
        raise UserError(f"{folder}: no {file.name} or {file.name}.gz")
    try:
        with gzip.open(packed) as content:
            return packed, content.read(most)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{packed}: not a whole gzip file ({error})") from error


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
