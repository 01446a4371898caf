"""One shard file: SFD's and LightningDiT's key names, its tensors mapped to memory, and all that its header tells.

A file holds one tensor (N, C_g, ...) per group, with any number of trailing axes, and its mirrored twin, optionally
the REPA features (N, D, ...) and theirs, and ``labels`` (N,). Opening one reads its header only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lwd.errors import UserError
from lwd.groups import Group, Layout
from lwd.images.walk import files_in

LABELS = "labels"
FEATURES = "feats_dino"
FLIP = "_flip"
SFD_KEYS = {"tex": "latents", "sem": "latents_sv"}

F = TypeVar("F", Path, str | Path)

Shard = Mapping[str, Tensor]
"""The tensors of one file, by key."""


def shard_key(group: Group) -> str:
    """The tensor name of a group: `Group.key`, else SFD's name, else ``latents_<name>``."""
    return group.key or SFD_KEYS.get(group.name, f"latents_{group.name}")


def is_shard(name: str) -> bool:
    """Whether the name ends as a shard does."""
    return name.endswith(".safetensors")


def shard_files(folder: Path) -> list[Path]:
    """The shards of a folder, in order. Raises UserError where there is none."""
    files = files_in(folder, is_shard)
    if not files:
        raise UserError(f"{folder}: no *.safetensors shards here; `lwd encode` makes them")
    return files


def shard_path(folder: Path, number: int) -> Path:
    """The path of a shard, named as SFD's. Its number is the images' place in the source, whatever process wrote it."""
    return folder / f"latents_rank00_shard{number:04d}.safetensors"


def open_shard(file: Path, name: str | None = None) -> Shard:
    """Map all tensors of a file, without reading them. Raises UserError for a truncated or foreign file, which it calls
    by its ``name``, by default the path."""
    try:
        with safe_open(file, framework="pt") as handle:
            return {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 - the handle is no mapping
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{name or file}: not a readable safetensors file ({reason})") from error


def infer_layout(shards: Iterable[Shard]) -> Layout | None:
    """The groups that the keys of all shards together show, None where there is none.

    They have shapes of their own where no shard contradicts that and they lie on different grids.
    """
    channels: dict[str, int] = {}
    grids: dict[str, set[tuple[int, ...]]] = {}
    for shard in shards:
        for key, tensor in shard.items():
            if (key == "latents" or key.startswith("latents_")) and not key.endswith(FLIP) and tensor.ndim > 1:
                channels.setdefault(key, max(1, tensor.shape[1]))
                grids.setdefault(key, set()).add(tuple(tensor.shape[2:]))
    alike = len(set().union(*grids.values())) < 2 or any(len(each) > 1 or 0 in min(each) for each in grids.values())
    shapes = {key: None if alike else min(each) for key, each in grids.items()}
    return Layout(Group(key, channels[key], key=key, shape=shapes[key]) for key in sorted(grids)) if grids else None


def shard_problems(file: str | Path, shard: Shard, layout: Layout, flip: bool, features: bool) -> Iterator[str]:
    """List the problems that a shard's header shows, one line each: keys, shapes, dtypes, lengths.

    ``flip``: twins must be there; ``features``: features count where there are any.
    """
    keys = [shard_key(g) for g in layout.groups] + [FEATURES] * (features and FEATURES in shard)
    needed = [*keys, *(key + FLIP for key in keys if flip), LABELS]
    for key in needed:
        if key not in shard:
            hint = "; data.flip=false does without mirrored twins" if key.endswith(FLIP) else ""
            yield f"{file}: missing key {key!r} (it has {', '.join(sorted(shard))}){hint}"
    for group in layout.groups:
        key = shard_key(group)
        if key in shard and (problem := shape_problem(group, shard[key])):
            yield f"{file}: {key!r} {problem}"
    for key in keys if flip else ():
        if key in shard and key + FLIP in shard and shard[key + FLIP].shape[1:] != shard[key].shape[1:]:
            twin, shape = tuple(shard[key + FLIP].shape), tuple(shard[key].shape)
            yield f"{file}: {key + FLIP!r} has shape {twin}, but {key!r} {shape}"
    for key in needed:
        if key in shard and key != LABELS and not shard[key].is_floating_point():
            yield f"{file}: {key!r} must be floating-point numbers, got {shard[key].dtype}"
    labels = shard.get(LABELS)
    if labels is not None and (labels.ndim != 1 or labels.is_floating_point()):
        yield f"{file}: {LABELS!r} must be integers (N,), got {labels.dtype} {tuple(labels.shape)}"
    lengths = {key: shard[key].shape[0] for key in needed if key in shard and shard[key].ndim}
    if len(set(lengths.values())) > 1:
        yield f"{file}: tensors of unequal length {lengths}"


def shape_problem(group: Group, latents: Tensor) -> str:
    """A line on what is wrong with the shape of a group's latents (N, C_g, ...); empty where nothing is."""
    own = None if group.shape is None else (group.channels, *group.shape)
    if latents.ndim > 1 and (latents.shape[1] == group.channels if own is None else latents.shape[1:] == own):
        return ""
    needed = ", ".join(map(str, (group.channels, "...") if own is None else own))
    return f"has shape {tuple(latents.shape)}, group {group.name!r} needs (N, {needed})"


def grid_problem(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """A line on latents (N, C_g, ...), named for people, that do not share their trailing axes; empty where they do."""
    (first, reference), *others = tensors
    for name, latents in others:
        if latents.shape[2:] != reference.shape[2:]:
            grids = f"{tuple(latents.shape[2:])} and {tuple(reference.shape[2:])}"
            return f"{name} and {first} lie on different grids, {grids}; they must share one, or each group has a shape"
    return ""


def folder_problems(path: Path, shards: Mapping[F, Shard], layout: Layout, flip: bool, features: bool) -> Iterator[str]:
    """List where the shards of a folder do not fit together, one line each: grids, features, dtypes."""
    keys: list[str] = [shard_key(g) for g in layout.groups]
    latents = [(f"{file}: {key!r}", shard[key]) for file, shard in shards.items() for key in keys if key in shard]
    if latents and not layout.flat and (problem := grid_problem(latents)):
        yield problem
    without = [file for file, shard in shards.items() if FEATURES not in shard]
    if features and 0 < len(without) < len(shards):
        yield f"{without[0]}: missing key {FEATURES!r}, which other shards have"
    widths = {tuple(shard[FEATURES].shape[1:]) for shard in shards.values() if FEATURES in shard}
    if features and len(widths) > 1:
        yield f"{path}: {FEATURES!r} differs in shape between shards {sorted(widths)}"
    if not any(len(shard[LABELS]) for shard in shards.values() if LABELS in shard and shard[LABELS].ndim):
        yield f"{path}: the shards hold no images"
    for key in [*keys, *[FEATURES] * features]:
        names = [key, key + FLIP] if flip else [key]
        dtypes = sorted({str(shard[name].dtype) for shard in shards.values() for name in names if name in shard})
        if len(dtypes) > 1:
            yield f"{path}: {key!r} differs in dtype between shards or twins {dtypes}"


def raise_first(problems: Iterator[str]) -> None:
    """Raise UserError for the first problem, if there is any."""
    for problem in problems:
        raise UserError(problem)


def of_key(shards: Sequence[Shard], key: str, flip: bool) -> list[Tensor]:
    """The tensors under a key in every shard: (plain, twin) pairs end to end, the plain one twice without twins."""
    return [shard[name] for shard in shards for name in (key, key + FLIP if flip else key)]


def without_rows(shard: Shard) -> Shard:
    """The same keys, dtypes and shapes with no row."""
    return {key: torch.empty((0, *tensor.shape[1:]), dtype=tensor.dtype) for key, tensor in shard.items()}
