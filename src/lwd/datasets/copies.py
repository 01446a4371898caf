"""Checked copies of data sets in the user's cache: one safetensors file each, images and labels of both splits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.files import atomic_path
from lwd.runtime.checkpoint import load_tensors, save_tensors

Split = Literal["train", "heldout"]


def every_nth(labels: Tensor, n: int) -> Tensor:
    """Whether each row is held out, (N,) bool: of each label (N,), the n-th, the 2n-th, ... in the order they come.

    Stratified, and free of random numbers.
    """
    seen = torch.zeros_like(labels)
    for label in range(int(labels.max()) + 1):
        mine = labels == label
        seen[mine] = torch.arange(int(mine.sum()))
    return seen % n == n - 1


def copy_path(name: str) -> Path:
    """Where the copy of data set ``name`` lies: NAME.safetensors in lwd's folder of the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "lwd" / f"{name}.safetensors"


def write_copy(name: str, splits: Mapping[Split, tuple[Tensor, Tensor]]) -> Path:
    """Keep images and labels, as they are, at `copy_path`; returns it."""
    tensors = {}
    for split, (images, labels) in splits.items():
        tensors[f"{split}_images"], tensors[f"{split}_labels"] = images, labels
    with atomic_path(copy_path(name)) as temporary:
        save_tensors(temporary, tensors)
    return copy_path(name)


def read_copy(name: str, split: Split, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Images (N, *shape) uint8 and labels (N,), whole numbers, as they were written.

    Raises UserError where the file holds something else, or no image.
    """
    path = copy_path(name)
    tensors = load_tensors(path)
    images, labels = tensors.get(f"{split}_images"), tensors.get(f"{split}_labels")
    if images is None or labels is None or not _fit(images, labels, shape):
        raise UserError(f"{path}: not what lwd data {name} writes; run it again, or remove the file")
    return images, labels


def _fit(images: Tensor, labels: Tensor, shape: tuple[int, ...]) -> bool:
    count = len(images) if images.ndim else 0
    types = images.dtype == torch.uint8 and labels.dtype in (torch.uint8, torch.int64)
    return types and count > 0 and images.shape == (count, *shape) and labels.shape == (count,)
