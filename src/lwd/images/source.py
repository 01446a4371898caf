"""What an image source is: labelled images by index, before any decoding is done to them.

Two kinds exist, `lwd.images.folder.FolderSource` and `lwd.images.tar.TarSource`; `lwd.images.open.open_source` chooses.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lwd.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What counts as an image, in any case of letters: torchvision's list, so that labels agree with its ImageFolder."""

LABEL_LIMIT = 2**31


class ImageError(Exception):
    """One image that cannot be read or decoded: its name and the reason, in one line."""


class ImageSource(ABC):
    """Labelled images by index. Holds no open file, so it may be forked or pickled to any number of workers.

    Index, names and labels are functions of the files alone, so a run can go on at any index.
    """

    def __init__(self, names: Iterable[str], labels: Sequence[int], classes: list[str] | None) -> None:
        self._names = Names(names)
        self.labels: NDArray[np.int64] = np.asarray(labels, dtype=np.int64)
        """All labels, (N,)."""
        self.classes = classes
        """Name of each class, by label; None where the source only has numbers."""

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """Where image ``index`` lies, relative to the source: "class/file.jpg", "shard.tar:key.jpg"."""
        return self._names[index]

    def label(self, index: int) -> int:
        """The class of image ``index``."""
        return int(self.labels[index])

    @abstractmethod
    def read(self, index: int) -> Image.Image:
        """Image ``index``, decoded in full, in its own mode; the first of several frames. Raises ImageError."""

    @abstractmethod
    def sizes(self) -> NDArray[np.int64]:
        """The bytes of each image file, (N,)."""

    def fingerprint(self) -> str:
        """SHA-256 over names, labels and file sizes, in hexadecimal: tells two sources apart without reading pixels."""
        digest = hashlib.sha256()
        for numbers in (self._names.ends, self.labels, self.sizes()):
            digest.update(np.ascontiguousarray(numbers, dtype="<i8").data)
        digest.update(self._names.block)
        return digest.hexdigest()


class Names:
    """Many strings in one block of bytes: forked workers share it, where a list's reference counts would copy it."""

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self.block = b"".join(encoded)
        self.ends: NDArray[np.int64] = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        start = self.ends[index - 1] if index else 0
        return os.fsdecode(self.block[start : self.ends[index]])


def is_image(name: str) -> bool:
    """Whether the name ends as an image file does."""
    return name.lower().endswith(EXTENSIONS)


def decode(file: BinaryIO, name: str) -> Image.Image:
    """Decode a whole image; raises ImageError with ``name`` where it is cut short, damaged or beyond Pillow's limit.

    Of a damaged JPEG, Pillow reports a missing end but not garbled data in between. `PIL.Image.Image.draft`, which
    lets JPEGs be decoded at a reduced size, is not used: its pixels differ from ADM's.
    """
    try:
        image = Image.open(file)
        image.load()
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image in a format that Pillow reads") from None
    except Exception as error:  # Pillow's decoders raise whatever they trip over in a damaged file
        raise ImageError(f"{name}: {_one_line(error)}") from error
    return image


def unreadable(error: OSError, name: str) -> ImageError:
    """The ImageError for a file that the system does not hand out."""
    return ImageError(f"{name}: {error.strerror or _one_line(error)}")


def parse_label(text: str, where: str) -> int:
    """A label in decimal digits; raises UserError, starting with ``where``, for anything else."""
    text = text.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) >= LABEL_LIMIT:
        raise UserError(f"{where}: label {text[:40]!r} is not a whole number from 0 to {LABEL_LIMIT - 1}")
    return int(text)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
