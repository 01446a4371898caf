"""What an image source is: labelled images by index, before any decoding is done to them.

Two kinds exist, `lwd.images.folder.FolderSource` and `lwd.images.tar.TarSource`; `lwd.images.open.open_source` chooses.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from lwd.errors import UserError
from lwd.images.decode import Picture
from lwd.images.walk import LeftOut

LABELS_CSV = "labels.csv"
LABEL_LIMIT = 2**31


class ImageSource(ABC):
    """Labelled images by index. Holds no open file, so it may be forked or pickled to any number of workers.

    Index, names and labels are functions of the files alone, so a run can go on at any index.
    """

    def __init__(
        self, names: Iterable[str], labels: Sequence[int], classes: list[str] | None, left_out: Sequence[LeftOut] = ()
    ) -> None:
        self._names = Names(names)
        self.labels: NDArray[np.int64] = np.asarray(labels, dtype=np.int64)
        """All labels, (N,)."""
        self.classes = classes
        """Name of each class, by label; None where the source only has numbers."""
        self.left_out = left_out
        """What lies among the images and is none of them."""

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """Where image ``index`` lies, relative to the source: "class/file.jpg", "shard.tar:key.jpg"."""
        return self._names[index]

    def label(self, index: int) -> int:
        """The class of image ``index``."""
        return int(self.labels[index])

    def number_as(self, train: ImageSource, where: str) -> None:
        """Take over the class numbers of the training images; classes without an image here are no matter.

        Raises UserError, starting with ``where``, for a class that those lack, and where one has names, the other not.
        """
        if self.classes is None:
            known = np.unique(train.labels) if train.classes is None else np.arange(len(train.classes))
            if len(strange := np.setdiff1d(self.labels, known)):
                raise UserError(
                    f"{where}: label {strange[0]} is no class of the training images, which have {len(known)}"
                )
            return
        if train.classes is None:
            raise UserError(
                f"{where}: has class names, the training images have numbers only; add a {LABELS_CSV} with numbers"
            )
        place = {name: label for label, name in enumerate(train.classes)}
        if unknown := [name for name in self.classes if name not in place]:
            raise UserError(
                f"{where}: {unknown[0]!r} is no class of the training images, which have {len(place)} "
                f"({', '.join(train.classes[:5])}{', ...' * (len(place) > 5)}); remove it, or rename it"
            )
        self.labels = np.array([place[name] for name in self.classes], dtype=np.int64)[self.labels]
        self.classes = train.classes

    @abstractmethod
    def read(self, index: int) -> Picture:
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


def parse_label(text: str, where: str) -> int:
    """A label in decimal digits; raises UserError, starting with ``where``, for anything else."""
    text = text.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) >= LABEL_LIMIT:
        raise UserError(f"{where}: label {text[:40]!r} is not a whole number from 0 to {LABEL_LIMIT - 1}")
    return int(text)
