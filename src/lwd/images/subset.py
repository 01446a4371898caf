"""Some of the images of a source, as a source of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lwd.images.decode import Picture
from lwd.images.source import ImageSource


class Subset(ImageSource):
    """The images ``rows`` (n,) of ``source``, in that order, under its classes.

    What the whole source leaves out is listed under the subset that has ``with_left_out``.
    """

    def __init__(self, source: ImageSource, rows: NDArray[np.int64], with_left_out: bool) -> None:
        self._source, self._rows = source, rows
        names = (source.name(int(row)) for row in rows)
        super().__init__(names, source.labels[rows].tolist(), source.classes, source.left_out if with_left_out else ())

    def read(self, index: int) -> Picture:
        """See `ImageSource.read`."""
        return self._source.read(int(self._rows[index]))

    def sizes(self) -> NDArray[np.int64]:
        """See `ImageSource.sizes`."""
        return self._source.sizes()[self._rows]
