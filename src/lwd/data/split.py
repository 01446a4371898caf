"""Which images of a built-in data set are held out, where its source does not say."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

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
