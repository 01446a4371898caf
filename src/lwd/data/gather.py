"""Rows of memory-mapped tensors, gathered by address: one call per batch, however many files the rows lie in."""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class MappedRows:
    """The rows of several tensors (N_i, ...) of one dtype and row shape, as one table to gather from.

    The tensors stay where they are mapped. A view of the addresses that they span, with overlapping rows, lets one
    `torch.index_select` reach all of them; only rows that are asked for are touched. Holds on to the tensors.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        first = tensors[0]
        self.shape, self.dtype = first.shape[1:], first.dtype
        self._tensors = tensors
        row_bytes = math.prod(self.shape) * first.element_size()
        addresses = [t.data_ptr() for t in tensors if t.numel()]
        lowest = min(addresses, default=0)
        span = max((t.data_ptr() + t.nbytes for t in tensors if t.numel()), default=0) - lowest
        # Foreign writers may leave tensors unaligned; then rows are gathered byte by byte.
        aligned = all(address % first.element_size() == 0 for address in addresses)
        self._unit = first.dtype if aligned else torch.uint8
        unit = self._unit.itemsize
        self._step = row_bytes // unit
        self._starts = torch.tensor([(t.data_ptr() - lowest) // unit if t.numel() else 0 for t in tensors])
        if addresses:
            memory = (ctypes.c_byte * span).from_address(lowest)
            units = torch.frombuffer(memory, dtype=self._unit, count=span // unit)
            self._table = units.as_strided((len(units) - self._step + 1, self._step), (1, 1))

    def gather(self, tensors: Tensor, rows: Tensor, out: Tensor) -> None:
        """Copy row ``rows[i]`` of tensor ``tensors[i]`` to ``out[i]``: (B,) each, out (B, n) of any dtype.

        Each row of ``out`` is contiguous; there may be gaps between them. The rows are trusted to be there.
        """
        if not len(rows):
            return
        if out.dtype == self.dtype:
            places = self._starts[tensors] + rows * self._step
            torch.index_select(self._table, 0, places, out=out.view(self._unit))
        else:
            own = torch.empty(out.shape, dtype=self.dtype)
            self.gather(tensors, rows, own)
            out.copy_(own)


class Index:
    """Finds an image's shard and row, for shards of ``lengths`` images end to end; twins are tensors of their own."""

    def __init__(self, lengths: Iterable[int]) -> None:
        self.lengths = torch.tensor(list(lengths))
        self.ends = self.lengths.cumsum(0)
        self._starts = torch.cat([torch.zeros(1, dtype=torch.int64), self.ends[:-1]])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def find(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B,) int64 -> shards and rows (B,) each. Raises IndexError for images that are not there."""
        if images.dtype != torch.int64 or images.ndim != 1:
            raise IndexError(f"images must be numbers (B,) int64, got {images.dtype} {tuple(images.shape)}")
        if len(images) and not 0 <= int(images.min()) <= int(images.max()) < len(self):
            raise IndexError(f"index out of range for {len(self)} images")
        shards = torch.searchsorted(self.ends, images, right=True)
        return shards, images - self._starts[shards]

    def name(self, files: Sequence[str | Path], image: Tensor) -> str:
        """The place of one image, for people: the file and the row in it."""
        shard, row = self.find(image.reshape(1))
        return f"{files[int(shard)]}: image {int(row)}"


class Buffers:
    """Memory for batches that is used again once no tensor refers to it. Threads may share one.

    Fresh pages cost several times what filling them does, and the system's allocator hands out fresh ones for every
    large tensor. At most ``keep`` unused blocks are held.
    """

    def __init__(self, keep: int = 6) -> None:
        self._keep = keep
        self._free: dict[int, NDArray[np.uint8]] = {}  # by identity: taking a key out is atomic

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """An uninitialised tensor."""
        size = math.prod(shape) * dtype.itemsize
        if not size:
            return torch.empty(tuple(shape), dtype=dtype)
        block = self._take(size)
        # The tensor's storage owns the view; when the last tensor on it is gone, so is the view, and the block is free.
        lease = block[:]
        weakref.finalize(lease, self._give_back, block).atexit = False
        return torch.from_numpy(lease).view(dtype).view(tuple(shape))

    def _take(self, size: int) -> NDArray[np.uint8]:
        for key, block in reversed(list(self._free.items())):
            if len(block) == size and self._free.pop(key, None) is not None:
                return block
        return np.empty(size, np.uint8)

    def _give_back(self, block: NDArray[np.uint8]) -> None:
        self._free[id(block)] = block
        for key in list(self._free)[: -self._keep]:
            self._free.pop(key, None)
