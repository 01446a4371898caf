"""Latent shards in SFD's and LightningDiT's format: safetensors files of about 1000 images each, read.

`lwd.data.format` has the format, `lwd.data.writing` writes them; statistics lie beside the files (`lwd.data.stats`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data._utils.collate import default_collate_fn_map

from lwd.data.format import (
    FEATURES,
    FLIP,
    LABELS,
    Shard,
    folder_problems,
    of_key,
    open_shard,
    raise_first,
    shard_files,
    shard_key,
    shard_problems,
    without_rows,
)
from lwd.data.gather import Buffers, Index, MappedRows
from lwd.data.remote.shards import RemoteShards
from lwd.data.stats import Statistics, first_not_finite
from lwd.errors import UserError
from lwd.groups import Layout
from lwd.runtime.seeding import Stream, uniform

__all__ = ["FEATURES", "FLIP", "LABELS", "Batch", "Items", "LatentShards", "shard_key"]


class Batch(NamedTuple):
    """x1 (B, C, ...) float32, standardised; labels (B,) int64; features (B, D, ...) as stored, or None."""

    x1: Tensor
    labels: Tensor
    features: Tensor | None


class _Item(tuple[Tensor, ...]):
    """One item of `Items`: a tuple whose type tells the DataLoader's collation that the batch exists already."""


class Items(Sequence[tuple[Tensor, ...]]):
    """The items of a batch, as a sequence of tuples; torch's default collation takes the batch whole, as it lies."""

    def __init__(self, batch: Batch) -> None:
        self.tensors = [tensor for tensor in batch if tensor is not None]

    def __len__(self) -> int:
        return len(self.tensors[0])

    @overload
    def __getitem__(self, index: int) -> tuple[Tensor, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Tensor, ...]]: ...
    def __getitem__(self, index: int | slice) -> tuple[Tensor, ...] | list[tuple[Tensor, ...]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return _Item(tensor[index] for tensor in self.tensors)


def _collate(batch: Sequence[tuple[Tensor, ...]], *, collate_fn_map: Any = None) -> list[Tensor]:
    if isinstance(batch, Items):
        return batch.tensors
    return [torch.stack(column) for column in zip(*batch, strict=True)]


default_collate_fn_map[_Item] = _collate  # torch's documented way to extend `default_collate`


class _Mapped(NamedTuple):
    """What rows are gathered from; ``shards``: of those that lie elsewhere, which are in the tables."""

    shards: frozenset[int]
    latents: list[MappedRows]
    features: MappedRows | None


class LatentShards(Dataset[tuple[Tensor, ...]]):
    """The images of a shard folder, as composite latents standardised per channel.

    Images stand for samples of any kind: groups on one grid are stacked, (C, ...); those of a flat layout, each of its
    own shape, are laid end to end, (D,). ``shape``: the trailing axes, (H, W) of images, () of vectors and flat ones.

    ``ds[i]`` is (x1 (C, ...), label) or, with ``features`` where the shards have them, (x1, label, features); with
    ``flip`` the mirrored twin of image i is taken with probability 1/2, a pure function of (seed, epoch, i): call
    `set_epoch`. `read` is the same for a whole batch at once, with the flips given.

    ``source``: shards that lie elsewhere, in place of the files in ``path``, where only their statistics are; `read`
    fetches and maps them.

    Files are memory-mapped, and of the tensors only labels are read at opening. A batch costs one gather per tensor and
    one multiply-add, whatever the number of shards; its memory is used again when nothing refers to it any more.
    Workers may be forked or spawned. Raises UserError for an empty folder, a missing key, tensors of unequal length or
    of the wrong shape; `read` raises it for values that are not finite, the first time it meets them.
    """

    def __init__(
        self,
        path: str | Path,
        layout: Layout,
        flip: bool = True,
        features: bool = True,
        seed: int = 0,
        source: RemoteShards | None = None,
    ) -> None:
        self.path, self.layout, self.flip, self.seed, self.epoch = Path(path), layout, flip, seed, 0
        self._wants_features, self.source = features, source
        self.files: Sequence[str | Path] = shard_files(self.path) if source is None else source.files
        self._open()
        self.statistics = Statistics.load(self.path, layout, len(self.shape))
        mean, std = self.statistics.mean, self.statistics.std
        self._gain, self._bias = (1 / std).flatten(), (-mean / std).flatten()

    def _open(self) -> None:
        shards: dict[str | Path, Shard] = {}
        heads = None if self.source is None else self.source.heads()
        for file in self.files:
            shards[file] = open_shard(Path(file)) if heads is None else heads[str(file)]
            raise_first(shard_problems(file, shards[file], self.layout, self.flip, self._wants_features))
        raise_first(folder_problems(self.path, shards, self.layout, self.flip, self._wants_features))
        tensors = list(shards.values())
        self.has_features = self._wants_features and FEATURES in tensors[0]
        self._absent = [without_rows(shard) for shard in tensors] if self.source is not None else []
        self._mapped = _Mapped(frozenset(), *self._map(self._absent or tensors))
        self._labels = torch.cat([shard[LABELS] for shard in tensors]).long()
        self._index = Index(len(shard[LABELS]) for shard in tensors)
        self.shape: tuple[int, ...] = () if self.layout.flat else tuple(self._mapped.latents[0].shape[1:])
        self._unseen = torch.ones(len(self), 2, dtype=torch.bool)
        self._buffers = Buffers()
        self._flips: tuple[tuple[int, int], Tensor] | None = None

    def _map(self, shards: Sequence[Shard]) -> tuple[list[MappedRows], MappedRows | None]:
        """The tables of all shards' latents, by group, and of their features."""
        keys = [shard_key(group) for group in self.layout.groups]
        features = MappedRows(of_key(shards, FEATURES, self.flip)) if self.has_features else None
        return [MappedRows(of_key(shards, key, self.flip)) for key in keys], features

    def _reach(self, shards: Tensor) -> _Mapped:
        """Tables in which the rows of ``shards`` (B,) are; those elsewhere are fetched."""
        mapped = self._mapped
        if self.source is not None and not (needed := set(shards.tolist())) <= mapped.shards:
            here = self.source.get(needed)
            tensors = [here.get(number, absent) for number, absent in enumerate(self._absent)]
            self._mapped = mapped = _Mapped(frozenset(here), *self._map(tensors))
        return mapped

    @property
    def feature_dim(self) -> int | None:
        """Channels of the REPA features, None where the shards have none (or they were not asked for)."""
        return None if self._mapped.features is None else int(self._mapped.features.shape[0])

    @property
    def feature_grid(self) -> tuple[int, ...]:
        """The trailing axes of the REPA features; () where there are none, too."""
        return () if self._mapped.features is None else tuple(self._mapped.features.shape[1:])

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many images each shard holds."""
        return tuple(self._index.lengths.tolist())

    def labels(self) -> Tensor:
        """All labels (N,), in order."""
        return self._labels.clone()

    def destandardise(self, x: Tensor) -> Tensor:
        """Standardised latents (B, C, ...) -> the encoders' own scale."""
        return self.statistics.destandardise(x)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose flips ``ds[i]`` draws."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(self.__getitems__([index])[0])

    def __getitems__(self, indices: Sequence[int]) -> Items:
        """The items of a batch: what torch's DataLoader calls."""
        rows = torch.as_tensor(indices)
        self._index.find(rows)
        return Items(self.read(rows, self._epoch_flips()[rows] if self.flip else None))

    def read(self, indices: Tensor, flips: Tensor | None = None) -> Batch:
        """Read images ``indices`` (B,), the mirrored twin where ``flips`` (B,) holds."""
        shards, rows = self._index.find(indices)
        if flips is not None and flips.shape != indices.shape:
            raise ValueError(f"{len(indices)} images, but flips of shape {tuple(flips.shape)}")
        twins = torch.zeros_like(indices) if flips is None else flips.bool().long()
        sources, mapped = 2 * shards + twins, self._reach(shards)
        x1 = self._standardised(mapped.latents, sources, rows)
        if bool(self._unseen[indices, twins].any()):
            self._check_finite(x1, indices)
            self._unseen[indices, twins] = False
        features = None
        if mapped.features is not None:
            features = self._buffers.empty((len(indices), *mapped.features.shape), mapped.features.dtype)
            mapped.features.gather(sources, rows, features.flatten(1))
        return Batch(x1, self._labels[indices], features)

    def _standardised(self, latents: Sequence[MappedRows], sources: Tensor, rows: Tensor) -> Tensor:
        """Rows (B,) of the tensors ``sources`` (B,) of each group's ``latents`` -> x1 (B, C, ...)."""
        x1 = self._buffers.empty((len(rows), self.layout.channels, *self.shape), torch.float32)
        for table, part in zip(latents, self.layout.split(x1).values(), strict=True):
            table.gather(sources, rows, part.flatten(1))
        # In inference a batch norm of mean 0 and variance 1 is gain * x + bias in one pass, with one load per value,
        # which no pointwise operation with broadcasting reaches.
        zeros, ones, unused = torch.zeros_like(self._bias), torch.ones_like(self._gain), torch.empty(0)
        out = (x1, unused, unused)
        torch.native_batch_norm(x1, self._gain, self._bias, zeros, ones, False, 0.0, 0.0, out=out)
        return x1

    def _epoch_flips(self) -> Tensor:
        """Flips (N,) of this epoch; drawn for all images at once, since drawing few costs as much."""
        drawn_for = self.seed, self.epoch
        if self._flips is None or self._flips[0] != drawn_for:
            images = torch.split(torch.arange(len(self)), 2**16)  # in pieces, for the memory that drawing takes
            flips = [uniform(Stream.FLIP, self.seed, self.epoch, part) < 0.5 for part in images]
            self._flips = drawn_for, torch.cat(flips)
        return self._flips[1]

    def _check_finite(self, x1: Tensor, indices: Tensor) -> None:
        for group, part in zip(self.layout.groups, self.layout.split(x1).values(), strict=True):
            if (bad := first_not_finite(part)) is not None:
                where = self._index.name(self.files, indices[bad[0]])
                raise UserError(f"{where}, channel {bad[1]} of {shard_key(group)!r} is not finite")

    def __getstate__(self) -> dict[str, Any]:
        names = "path layout flip seed epoch _wants_features source files statistics _gain _bias"
        return {name: self.__dict__[name] for name in names.split()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()
