"""Latent shards in SFD's and LightningDiT's format: safetensors files of about 1000 images each.

A file holds one tensor (N, C_g, H, W) per group and its mirrored twin, optionally the REPA features (N, D, h, w) and
theirs, and ``labels`` (N,). Statistics lie beside the files (`lwd.data.stats`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset

from lwd.data.stats import channel_stats, load_stats, save_stats, stats_path
from lwd.errors import UserError
from lwd.files import atomic_path
from lwd.groups import Group, Layout
from lwd.runtime.seeding import Stream, uniform

LABELS = "labels"
FEATURES = "feats_dino"
FLIP = "_flip"
_SFD_KEYS = {"tex": "latents", "sem": "latents_sv"}


def shard_key(group: Group) -> str:
    """The tensor name of a group: `Group.key`, else SFD's name, else ``latents_<name>``."""
    return group.key or _SFD_KEYS.get(group.name, f"latents_{group.name}")


class Batch(NamedTuple):
    """x1 (B, C, H, W) float32, standardised; labels (B,) int64; features (B, D, h, w) as stored, or None."""

    x1: Tensor
    labels: Tensor
    features: Tensor | None


class LatentShards(Dataset[tuple[Tensor, ...]]):
    """The images of a shard folder, as composite latents standardised per channel.

    ``ds[i]`` is (x1 (C, H, W), label) or, with ``features`` where the shards have them, (x1, label, features); with
    ``flip`` the mirrored twin of image i is taken with probability 1/2, a pure function of (seed, epoch, i): call
    `set_epoch`. `read` is the same for a whole batch at once, with the flips given.

    Files are memory-mapped and their headers read once. Raises UserError for an empty folder, a missing key, tensors of
    unequal length or of the wrong shape; `read` raises it for values that are not finite.
    """

    def __init__(
        self, path: str | Path, layout: Layout, flip: bool = True, features: bool = True, seed: int = 0
    ) -> None:
        self.path, self.layout, self.flip, self.seed, self.epoch = Path(path), layout, flip, seed, 0
        self._wants_features = features
        self.files = sorted(self.path.glob("*.safetensors"))
        if not self.files:
            raise UserError(f"{self.path}: no *.safetensors shards here; `lwd encode` makes them")
        self._open()
        stats = [load_stats(stats_path(self.path, shard_key(g)), g.channels) for g in layout.groups]
        self.mean, self.std = (torch.cat(parts, dim=1) for parts in zip(*stats, strict=True))
        self._gain, self._bias = 1 / self.std, -self.mean / self.std

    def _open(self) -> None:
        self._shards = [self._open_shard(file) for file in self.files]
        self._ends = list(accumulate(len(shard[LABELS]) for shard in self._shards))
        grids = {tuple(s[shard_key(g)].shape[2:]) for s in self._shards for g in self.layout.groups}
        if len(grids) > 1:
            raise UserError(
                f"{self.path}: groups or shards lie on different grids {sorted(grids)}; they must share one"
            )
        without = [file for file, shard in zip(self.files, self._shards, strict=True) if FEATURES not in shard]
        self.has_features = self._wants_features and not without
        if self._wants_features and 0 < len(without) < len(self.files):
            raise UserError(f"{without[0]}: missing key {FEATURES!r}, which other shards have")
        widths = {tuple(shard[FEATURES].shape[1:]) for shard in self._shards} if self.has_features else set()
        if len(widths) > 1:
            raise UserError(f"{self.path}: {FEATURES!r} differs in shape between shards {sorted(widths)}")

    def _open_shard(self, file: Path) -> dict[str, Tensor]:
        keys = [shard_key(g) for g in self.layout.groups]
        tensors = [*keys]
        try:
            with safe_open(file, framework="pt") as handle:
                present = set(handle.keys())
                if self._wants_features and FEATURES in present:
                    tensors.append(FEATURES)
                needed = [*tensors, *(key + FLIP for key in tensors if self.flip), LABELS]
                if missing := [key for key in needed if key not in present]:
                    raise UserError(f"{file}: missing key {missing[0]!r} (it has {', '.join(sorted(present))})")
                shard = {key: handle.get_tensor(key) for key in needed}
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file}: not a readable safetensors file ({error})") from error
        for group, key in zip(self.layout.groups, keys, strict=True):
            if shard[key].ndim != 4 or shard[key].shape[1] != group.channels:
                raise UserError(
                    f"{file}: {key!r} has shape {tuple(shard[key].shape)}, group {group.name!r} needs "
                    f"(N, {group.channels}, H, W)"
                )
        for key in tensors if self.flip else ():
            twin, shape = tuple(shard[key + FLIP].shape), tuple(shard[key].shape)
            if twin[1:] != shape[1:]:
                raise UserError(f"{file}: {key + FLIP!r} has shape {twin}, but {key!r} {shape}")
        if shard[LABELS].ndim != 1 or shard[LABELS].is_floating_point():
            raise UserError(
                f"{file}: {LABELS!r} must be integers (N,), got {shard[LABELS].dtype} {tuple(shard[LABELS].shape)}"
            )
        lengths = {key: len(tensor) for key, tensor in shard.items()}
        if len(set(lengths.values())) > 1:
            raise UserError(f"{file}: tensors of unequal length {lengths}")
        return shard

    @property
    def input_size(self) -> int:
        """Height (= width) of the latent grid."""
        return int(self._shards[0][shard_key(self.layout.groups[0])].shape[-1])

    @property
    def feature_dim(self) -> int | None:
        """Channels of the REPA features, None where the shards have none (or they were not asked for)."""
        return int(self._shards[0][FEATURES].shape[1]) if self.has_features else None

    def labels(self) -> Tensor:
        """All labels (N,), in order."""
        return torch.cat([shard[LABELS] for shard in self._shards]).long()

    def destandardise(self, x: Tensor) -> Tensor:
        """Standardised latents (B, C, H, W) -> the encoders' own scale."""
        return torch.addcmul(self.mean.to(x.device), x, self.std.to(x.device))

    def set_epoch(self, epoch: int) -> None:
        """Which flips ``ds[i]`` draws."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, ...]]:
        """The items of a batch: what torch's DataLoader calls."""
        rows = torch.as_tensor(indices)
        flips = uniform(Stream.FLIP, self.seed, self.epoch, rows) < 0.5 if self.flip else None
        return list(zip(*(t for t in self.read(rows, flips) if t is not None), strict=True))

    def read(self, indices: Tensor, flips: Tensor | None = None) -> Batch:
        """Images ``indices`` (B,), the mirrored twin where ``flips`` (B,) holds."""
        size = len(self)
        if bool(((indices < 0) | (indices >= size)).any()):
            raise IndexError(f"index out of range for {size} images")
        first = self._shards[0]
        grid = first[shard_key(self.layout.groups[0])].shape[2:]
        x1 = torch.empty(len(indices), self.layout.channels, *grid)
        labels = torch.empty(len(indices), dtype=torch.int64)
        features = first[FEATURES].new_empty(len(indices), *first[FEATURES].shape[1:]) if self.has_features else None
        columns = self.layout.split(x1)
        for (shard_number, flip), where in self._by_source(indices.tolist(), flips).items():
            shard, suffix = self._shards[shard_number], FLIP if flip else ""
            rows = indices[where] - (self._ends[shard_number] - len(shard[LABELS]))
            for group in self.layout.groups:
                columns[group.name][where] = shard[shard_key(group) + suffix][rows].float()
            labels[where] = shard[LABELS][rows].long()
            if features is not None:
                features[where] = shard[FEATURES + suffix][rows]
        x1 = torch.addcmul(self._bias, x1, self._gain)
        if not bool(torch.isfinite(x1.sum())):  # one pass; a term that is not finite makes the sum so
            self._check_finite(x1, indices)
        return Batch(x1, labels, features)

    def _by_source(self, indices: list[int], flips: Tensor | None) -> dict[tuple[int, bool], list[int]]:
        """(shard, flipped) -> positions in the batch."""
        sources: dict[tuple[int, bool], list[int]] = {}
        flipped = flips.tolist() if flips is not None else [False] * len(indices)
        for position, (index, flip) in enumerate(zip(indices, flipped, strict=True)):
            sources.setdefault((bisect_right(self._ends, index), flip), []).append(position)
        return sources

    def _check_finite(self, x1: Tensor, indices: Tensor) -> None:
        bad = (~torch.isfinite(x1)).flatten(2).any(2).nonzero()
        if not len(bad):
            return
        position, channel = bad[0].tolist()
        index = int(indices[position])
        shard = bisect_right(self._ends, index)
        row = index - (self._ends[shard] - len(self._shards[shard][LABELS]))
        raise UserError(f"{self.files[shard]}: image {row}, channel {channel} of {self.layout} is not finite")

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_shards"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


def write_shard(
    path: str | Path,
    layout: Layout,
    latents: Mapping[str, Tensor],
    labels: Tensor,
    flipped: Mapping[str, Tensor] | None = None,
    features: Tensor | None = None,
    features_flipped: Tensor | None = None,
) -> None:
    """Write one shard atomically.

    ``latents`` and ``flipped``: group name -> (N, C_g, H, W) on the encoders' own scale; labels (N,); features
    (N, D, h, w), stored as float16. Raises UserError for values that are not finite or tensors of unequal length.
    """
    path = Path(path)
    tensors = {shard_key(g): latents[g.name].float() for g in layout.groups}
    if flipped is not None:
        tensors |= {shard_key(g) + FLIP: flipped[g.name].float() for g in layout.groups}
    if features is not None:
        tensors[FEATURES] = features.half()
    if features_flipped is not None:
        tensors[FEATURES + FLIP] = features_flipped.half()
    for group in layout.groups:
        for part in (latents, flipped) if flipped is not None else (latents,):
            if part[group.name].shape[1:2] != (group.channels,):
                raise UserError(
                    f"{path}: {group.name!r} needs (N, {group.channels}, H, W), got {tuple(part[group.name].shape)}"
                )
    for key, tensor in tensors.items():
        if len(tensor) != len(labels):
            raise UserError(f"{path}: {len(labels)} labels for {len(tensor)} rows of {key!r}")
        if not bool(torch.isfinite(tensor).all()):
            row = int((~torch.isfinite(tensor)).flatten(1).any(1).int().argmax())
            raise UserError(f"{path}: {key!r} of image {row} is not finite; nothing was written")
    tensors[LABELS] = labels.long()
    with atomic_path(path) as temporary:
        save_file({k: t.contiguous() for k, t in tensors.items()}, temporary)


def write_stats(folder: str | Path, layout: Layout) -> None:
    """Write the per-channel statistics of a folder's shards beside them, one tensor in memory at a time."""
    folder = Path(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder}: no *.safetensors shards here")
    for group in layout.groups:
        key = shard_key(group)
        save_stats(stats_path(folder, key), *channel_stats(_read_tensor(file, key) for file in files))


def _read_tensor(file: Path, key: str) -> Tensor:
    try:
        with safe_open(file, framework="pt") as handle:
            tensor: Tensor = handle.get_tensor(key)
            return tensor
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: no readable tensor {key!r} ({error})") from error
