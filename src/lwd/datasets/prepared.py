"""Prepared data sets: one safetensors file each, with the images and labels of both splits.

Keys: ``train_images``, ``train_labels``, ``heldout_images``, ``heldout_labels``. Images (N, c, H, H), channels first,
c 1 or 3 and H even: uint8 from 0 to 255, or float32 from -1 to 1. Labels (N,), whole numbers that count the classes
from 0.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.files import atomic_path
from lwd.images.sheets import to_unit
from lwd.runtime.checkpoint import load_tensors, save_tensors

Split = Literal["train", "heldout"]
SPLITS: tuple[Split, ...] = ("train", "heldout")
Images = tuple[Tensor, Tensor]
"""Images (N, c, H, W) and labels (N,)."""

SUFFIX = ".safetensors"
MOST_CLASSES = 2**16
_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def copy_path(name: str) -> Path:
    """Where the copy of data set ``name`` lies: NAME.safetensors in lwd's folder of the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "lwd" / f"{name}{SUFFIX}"


def write_prepared(path: Path, splits: Mapping[Split, Images]) -> Path:
    """Write images and labels as they are; returns ``path``."""
    tensors = {}
    for split, (images, labels) in splits.items():
        tensors[f"{split}_images"], tensors[f"{split}_labels"] = images.contiguous(), labels.contiguous()
    with atomic_path(path) as temporary:
        save_tensors(temporary, tensors)
    return path


def read_prepared(path: Path) -> dict[Split, Images]:
    """Images (N, c, H, H) float32 in [-1, 1] and labels (N,) int64 of both splits.

    Raises UserError for the first thing that is not as the format has it.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; a prepared data set is one .safetensors file (docs/data.md)")
    try:
        tensors = load_tensors(path)
    except UserError as error:
        raise UserError(f"{error}; write it again") from error
    splits = {split: _read_split(path, tensors, split) for split in SPLITS}
    (images, labels), (heldout_images, heldout_labels) = splits["train"], splits["heldout"]
    if images.shape[1:] != heldout_images.shape[1:]:
        shapes = f"{tuple(heldout_images.shape[1:])}, train_images {tuple(images.shape[1:])}"
        raise UserError(f"{path}: heldout_images holds images of {shapes}; bring all to one shape")
    new = (~torch.isin(heldout_labels, labels)).nonzero()
    if len(new):
        row = int(new[0])
        raise UserError(
            f"{path}: heldout_labels[{row}] is {int(heldout_labels[row])}, a class that train_labels lacks; "
            "leave its images out, or put some into training"
        )
    return splits


def _read_split(path: Path, tensors: Mapping[str, Tensor], split: Split) -> Images:
    keys = f"{split}_images", f"{split}_labels"
    for key in keys:
        if key not in tensors:
            needed = ", ".join(f"{each}_{kind}" for each in SPLITS for kind in ("images", "labels"))
            raise UserError(f"{path}: {key} is missing; a prepared data set has {needed}")
    images, labels = (tensors[key] for key in keys)
    _check_images(f"{path}: {keys[0]}", images)
    if labels.dtype not in _WHOLE or labels.ndim != 1:
        raise UserError(f"{path}: {keys[1]} is {_form(labels)}; needed are whole numbers (N,), uint8 or int8 to int64")
    if len(labels) != len(images):
        raise UserError(
            f"{path}: {keys[1]} has {len(labels)} labels, {keys[0]} {len(images)} images; each image needs its own"
        )
    labels = labels.long()
    wrong = ((labels < 0) | (labels >= MOST_CLASSES)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise UserError(
            f"{path}: {keys[1]}[{row}] is {int(labels[row])}; number the classes from 0 on, below {MOST_CLASSES}"
        )
    return to_unit(images), labels


def _check_images(where: str, images: Tensor) -> None:
    shape = images.shape
    square = images.ndim == 4 and shape[1] in (1, 3) and shape[2] == shape[3] and shape[2] % 2 == 0
    if images.dtype not in (torch.uint8, torch.float32) or not square or 0 in shape:
        last = images.ndim == 4 and shape[1] not in (1, 3) and shape[3] in (1, 3)
        hint = "; put channels first, images.permute(0, 3, 1, 2)" if last else ""
        raise UserError(
            f"{where} is {_form(images)}; needed is (N, c, H, H), c 1 or 3, H even, N at least 1, of uint8 (0 to 255) "
            f"or float32 (-1 to 1){hint}"
        )
    if images.dtype == torch.float32:
        wrong = (~(images.abs() <= 1)).flatten(1).any(1).nonzero()  # ~(<=): NaN is wrong, too
        if len(wrong):
            raise UserError(f"{where}[{int(wrong[0])}] has values outside -1 to 1, or NaN; scale them, or give uint8")


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
