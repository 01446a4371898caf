"""Data sets by name: scikit-learn's handwritten digits, which are always there, and Fashion-MNIST.

A data set is a function from a split to ``(images, labels)``: images (N, c, H, W) float32 in [-1, 1], labels (N,)
int64. `DATASETS` is the register of them; a further one is a function and an entry.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Literal

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import avg_pool2d

from lwd.data.fashion import fashion_mnist
from lwd.errors import UserError

Split = Literal["train", "heldout"]
Images = tuple[Tensor, Tensor]

HELDOUT_EVERY = 4
"""Of each class, every fourth image is held out."""


def digits(split: Split) -> Images:
    """1 797 real 8x8 digits, 17 grey levels -> images (N, 1, 8, 8) in [-1, 1], labels (N,); N is 1 352 or 445.

    Source: the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998), which
    scikit-learn ships; no two of its images are equal. Each of its 13 writers occurs in both splits.
    """
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float()[:, None] / 8 - 1
    labels = torch.from_numpy(bunch.target).long()
    rows = _rows(labels, split)
    return images[rows], labels[rows]


def fashion_mnist_16(split: Split) -> Images:
    """Fashion-MNIST, padded to 32x32 and reduced to 16x16 by means of 2x2 pixels: a quarter of the tokens."""
    images, labels = fashion_mnist(split)
    return avg_pool2d(images, 2), labels


DATASETS: dict[str, Callable[[Split], Images]] = {
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "fashion-mnist-16": fashion_mnist_16,
}


def load(name: str, split: Split) -> Images:
    """A data set by name: images (N, c, H, W), labels (N,). Raises UserError if it is unknown or not here."""
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(DATASETS)}"
        raise UserError(f"unknown data set {name!r}; {hint}")
    return DATASETS[name](split)


def _rows(labels: Tensor, split: Split) -> Tensor:
    """The rows of a split, in the file's order: labels (N,) -> (n,). Stratified, and free of random numbers."""
    seen = torch.zeros_like(labels)
    for label in range(int(labels.max()) + 1):
        mine = labels == label
        seen[mine] = torch.arange(int(mine.sum()))
    heldout = seen % HELDOUT_EVERY == HELDOUT_EVERY - 1
    return (heldout if split == "heldout" else ~heldout).nonzero()[:, 0]
