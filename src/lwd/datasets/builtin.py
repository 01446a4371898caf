"""Data sets by name: scikit-learn's handwritten digits, which are always there, and Fashion-MNIST.

A data set is a function from a split to ``(images, labels)``: images (N, c, H, W) float32 in [-1, 1], labels (N,)
int64. `DATASETS` is the register of them; a further one is a function and an entry.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from lwd.datasets.fashion import fashion_mnist
from lwd.datasets.prepared import Images, Split
from lwd.errors import UserError

HELDOUT_EVERY = 4
"""Of each class, every fourth image is held out."""


def digits(split: Split) -> Images:
    """1 797 real 8x8 digits, 17 grey levels -> images (N, 1, 8, 8) in [-1, 1], labels (N,); N is 1 352 or 445.

    Source: the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998), which
    scikit-learn ships; no two of its images are equal. Each of its 13 writers occurs in both splits.
    """
    from sklearn.datasets import load_digits  # a second to import, which every stage would wait for

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float()[:, None] / 8 - 1
    labels = torch.from_numpy(bunch.target).long()
    heldout = every_nth(labels, HELDOUT_EVERY)
    rows = heldout if split == "heldout" else ~heldout
    return images[rows], labels[rows]


def every_nth(labels: Tensor, n: int) -> Tensor:
    """Whether each row is held out, (N,) bool: of each label (N,), the n-th, the 2n-th, ... in the order they come.

    Stratified, and free of random numbers.
    """
    seen = torch.zeros_like(labels)
    for label in range(int(labels.max()) + 1):
        mine = labels == label
        seen[mine] = torch.arange(int(mine.sum()))
    return seen % n == n - 1


def halved(dataset: Callable[[Split], Images]) -> Callable[[Split], Images]:
    """The data set at half its size, by means of 2x2 pixels: a quarter of the tokens, for slow machines."""

    def smaller(split: Split) -> Images:
        images, labels = dataset(split)
        return avg_pool2d(images, 2), labels

    return smaller


DATASETS: dict[str, Callable[[Split], Images]] = {
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "fashion-mnist-16": halved(fashion_mnist),
}
"""Fashion-MNIST has 32x32 pixels; with -16, 16x16."""


def load(name: str, split: Split) -> Images:
    """A data set by name: images (N, c, H, W), labels (N,). Raises UserError if it is unknown or not here."""
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(DATASETS)}"
        raise UserError(f"unknown data set {name!r}; {hint}")
    return DATASETS[name](split)
