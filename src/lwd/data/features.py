"""The patch features in a folder of latent shards, alone: what SemVAE trains on. Latents are never read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from lwd.data.batches import StepOrder
from lwd.data.format import FEATURES, FLIP, Shard, of_key, open_shard, shard_files
from lwd.data.gather import Buffers, Index, MappedRows
from lwd.data.stats import first_not_finite
from lwd.errors import UserError


class FeatureBatch(NamedTuple):
    """One process's share of a step: features (B, D, h, w) as stored, and their places (B,) in the global batch."""

    features: Tensor
    places: Tensor


class FeatureShards:
    """The features of a shard folder, memory-mapped; with ``flip`` their mirrored twins, too.

    Raises UserError for an empty folder, an unreadable file, a missing key, or tensors that differ in shape.
    """

    def __init__(self, path: Path, flip: bool = False) -> None:
        self.path, self.flip = path, flip
        self.files = shard_files(path)
        self._open()

    def _open(self) -> None:
        keys = (FEATURES, FEATURES + FLIP) if self.flip else (FEATURES,)
        shards = [_checked(file, open_shard(file), keys) for file in self.files]
        shapes = {tuple(shard[key].shape[1:]) for shard in shards for key in keys}
        dtypes = {shard[key].dtype for shard in shards for key in keys}
        if len(shapes) > 1 or len(dtypes) > 1:
            kinds = sorted(map(str, shapes if len(shapes) > 1 else dtypes))
            raise UserError(f"{self.path}: {FEATURES!r} differs between shards or twins: {', '.join(kinds)}")
        self._features = MappedRows(of_key(shards, FEATURES, self.flip))
        self._index = Index(len(shard[FEATURES]) for shard in shards)
        self._buffers = Buffers()

    @property
    def shape(self) -> tuple[int, ...]:
        """(D, h, w) of one image."""
        return tuple(self._features.shape)

    def __len__(self) -> int:
        return len(self._index)

    def read(self, indices: Tensor, flips: Tensor | None = None) -> Tensor:
        """Features of images ``indices`` (B,), of the mirrored twin where ``flips`` (B,) holds: (B, D, h, w) as stored.

        Raises UserError for values that are not finite.
        """
        shards, rows = self._index.find(indices)
        out = self._buffers.empty((len(indices), *self.shape), self._features.dtype)
        self._features.gather(2 * shards + (0 if flips is None else flips.bool().long()), rows, out.flatten(1))
        if (bad := first_not_finite(out)) is not None:
            where = self._index.name(self.files, indices[bad[0]])
            raise UserError(f"{where}, channel {bad[1]} of {FEATURES!r} is not finite; encode it again")
        return out

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "flip": self.flip, "files": self.files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


class FeatureBatches(StepOrder, Dataset[FeatureBatch]):
    """``ds[step]``, a pure function of (seed, step), in the order of `lwd.data.batches.StepBatches`."""

    def __init__(self, shards: FeatureShards, batch: int, seed: int, rank: int = 0, world: int = 1) -> None:
        super().__init__(len(shards), shards.flip, batch, seed, rank, world)
        self.shards = shards

    def __getitem__(self, step: int) -> FeatureBatch:
        return FeatureBatch(self.shards.read(*self.own(step)), self.mine)


def _checked(file: Path, shard: Shard, keys: tuple[str, ...]) -> Shard:
    """The shard; raises UserError where features are missing, of another kind, or of unequal number."""
    for key in keys:
        if key not in shard:
            raise UserError(f"{file}: missing key {key!r} (it has {', '.join(sorted(shard))})")
        if shard[key].ndim != 4 or not shard[key].is_floating_point():
            what = f"{shard[key].dtype} {tuple(shard[key].shape)}"
            raise UserError(f"{file}: {key!r} must be features (N, D, h, w), got {what}")
        if len(shard[key]) != len(shard[keys[0]]):
            raise UserError(f"{file}: {len(shard[keys[0]])} rows of {keys[0]!r}, {len(shard[key])} of {key!r}")
    return shard
