"""Latent shards and their statistics, written; `lwd.data.shards` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lwd.data.format import FEATURES, FLIP, LABELS, grid_problem, open_shard, shape_problem, shard_files, shard_key
from lwd.data.stats import channel_stats, first_not_finite, save_stats, stats_path
from lwd.errors import UserError
from lwd.files import atomic_path, check_place
from lwd.groups import Group, Layout
from lwd.runtime.checkpoint import save_tensors


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

    ``latents`` and ``flipped``: group name -> (N, C_g, ...) on the encoders' own scale; labels (N,); features
    (N, D, ...), stored as float16. Raises UserError for values that are not finite, tensors of unequal length, and
    groups of other shapes than the layout's, or on different grids where it gives them none.
    """
    path = Path(path)
    tensors = {shard_key(g): latents[g.name].float() for g in layout.groups}
    if flipped is not None:
        tensors |= {shard_key(g) + FLIP: flipped[g.name].float() for g in layout.groups}
    if features is not None:
        tensors[FEATURES] = features.half()
    if features_flipped is not None:
        tensors[FEATURES + FLIP] = features_flipped.half()
    sides = (latents,) if flipped is None else (latents, flipped)
    for group in layout.groups:
        for part in sides:
            if problem := shape_problem(group, part[group.name]):
                raise UserError(f"{path}: {shard_key(group)!r} {problem}")
    named = [(repr(name), part[name]) for part in sides for name in layout.names]
    if not layout.flat and (problem := grid_problem(named)):
        raise UserError(f"{path}: {problem}")
    for key, tensor in tensors.items():
        if len(tensor) != len(labels):
            raise UserError(f"{path}: {len(labels)} labels for {len(tensor)} rows of {key!r}")
        if not bool(torch.isfinite(tensor).all()):
            row = int((~torch.isfinite(tensor)).flatten(1).any(1).int().argmax())
            raise UserError(f"{path}: {key!r} of image {row} is not finite; nothing was written")
    tensors[LABELS] = labels.long()
    with atomic_path(path) as temporary:
        save_tensors(temporary, tensors)


def write_stats(folder: str | Path, layout: Layout) -> None:
    """Write the per-channel statistics of a folder's shards beside them, one tensor in memory at a time.

    Raises UserError, before anything is written, for an unreadable shard, latents of another shape than the layout's,
    and a value that is not finite.
    """
    folder = Path(folder)
    files = shard_files(folder)
    groups = [(group, shard_key(group)) for group in layout.groups]
    for _, key in groups:
        check_place(stats_path(folder, key))
    stats = [channel_stats(_latents(file, group, key) for file in files) for group, key in groups]
    for (_, key), (mean, std) in zip(groups, stats, strict=True):
        save_stats(stats_path(folder, key), mean, std)


def _latents(file: Path, group: Group, key: str) -> Tensor:
    shard = open_shard(file)
    if key not in shard:
        raise UserError(f"{file}: missing key {key!r} (it has {', '.join(sorted(shard))})")
    if problem := shape_problem(group, shard[key]):
        raise UserError(f"{file}: {key!r} {problem}")
    if (bad := first_not_finite(shard[key])) is not None:
        raise UserError(f"{file}: {key!r} of image {bad[0]}, channel {bad[1]} is not finite; encode that shard again")
    return shard[key]
