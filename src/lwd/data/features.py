"""The patch features in a folder of latent shards, alone: what SemVAE trains on. Latents are never read."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.utils.data import Dataset

from lwd.data.batches import share
from lwd.data.shards import FEATURES, FLIP
from lwd.errors import UserError
from lwd.runtime.seeding import Stream, batch_indices, uniform


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
        self.files = sorted(path.glob("*.safetensors"))
        if not self.files:
            raise UserError(f"{path}: no *.safetensors shards here; `lwd encode` makes them")
        self._open()

    def _open(self) -> None:
        self._shards = [_open(file, (FEATURES, FEATURES + FLIP) if self.flip else (FEATURES,)) for file in self.files]
        shapes = [tuple(tensor.shape[1:]) for shard in self._shards for tensor in shard.values()]
        if len({*shapes}) > 1:
            raise UserError(f"{self.path}: {FEATURES!r} differs in shape between shards {sorted({*shapes})}")
        self.shape: tuple[int, ...] = shapes[0]
        self._ends = torch.tensor(list(accumulate(len(shard[FEATURES]) for shard in self._shards)))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, indices: Tensor, flips: Tensor | None = None) -> Tensor:
        """Features of images ``indices`` (B,), of the mirrored twin where ``flips`` (B,) holds: (B, D, h, w) as stored.

        Raises UserError for values that are not finite.
        """
        flips = torch.zeros_like(indices, dtype=torch.bool) if flips is None else flips
        out = self._shards[0][FEATURES].new_empty(len(indices), *self.shape)
        numbers = torch.bucketize(indices, self._ends, right=True)
        for number in torch.unique(numbers).tolist():
            shard = self._shards[number]
            start = int(self._ends[number]) - len(shard[FEATURES])
            for key, wanted in ((FEATURES, ~flips), (FEATURES + FLIP, flips)):
                where = (wanted & (numbers == number)).nonzero()[:, 0]
                if len(where):
                    out[where] = shard[key][indices[where] - start]
        if not bool(torch.isfinite(out.sum(dtype=torch.float32))):  # one pass; a term that is not finite makes it so
            self._check_finite(out, indices)
        return out

    def _check_finite(self, out: Tensor, indices: Tensor) -> None:
        bad = (~torch.isfinite(out)).flatten(1).any(1).nonzero()
        if len(bad):
            index = int(indices[int(bad[0])])
            number = int(torch.bucketize(torch.tensor(index), self._ends, right=True))
            row = index - (int(self._ends[number]) - len(self._shards[number][FEATURES]))
            raise UserError(f"{self.files[number]}: {FEATURES!r} of image {row} is not finite; encode it again")

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_shards"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


class FeatureBatches(Dataset[FeatureBatch]):
    """``ds[step]``, a pure function of (seed, step); process ``rank`` of ``world`` gets its part.

    Order and flips are those of `lwd.data.batches.StepBatches`. Raises UserError for a batch that does not divide.
    """

    def __init__(self, shards: FeatureShards, batch: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.shards, self.batch, self.seed = shards, batch, seed
        self.mine = share(batch, rank, world)

    def __getitem__(self, step: int) -> FeatureBatch:
        images = self.images(step)[self.mine]
        flips = uniform(Stream.FLIP, self.seed, step, self.mine) < 0.5 if self.shards.flip else None
        return FeatureBatch(self.shards.read(images, flips), self.mine)

    def images(self, step: int) -> Tensor:
        """The images of the whole step, over all processes: (batch,) int64."""
        return batch_indices(self.seed, step, self.batch, len(self.shards))


def _open(file: Path, keys: tuple[str, ...]) -> Mapping[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as handle:
            present = set(handle.keys())
            if missing := [key for key in keys if key not in present]:
                raise UserError(f"{file}: missing key {missing[0]!r} (it has {', '.join(sorted(present))})")
            shard = {key: handle.get_tensor(key) for key in keys}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: not a readable safetensors file ({error})") from error
    for key, tensor in shard.items():
        if tensor.ndim != 4 or not tensor.is_floating_point():
            raise UserError(f"{file}: {key!r} must be features (N, D, h, w), got {tensor.dtype} {tuple(tensor.shape)}")
        if len(tensor) != len(shard[keys[0]]):
            raise UserError(f"{file}: {len(shard[keys[0]])} rows of {keys[0]!r}, {len(tensor)} of {key!r}")
    return shard
