"""TensorFlow 1's `resize_bilinear`, which the Inception graph of 2015 begins with."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def tf1_resize_bilinear(images: Tensor, size: int) -> Tensor:
    """Images (N, C, H, W), any dtype -> (N, C, size, size) float32.

    TensorFlow's legacy convention (``align_corners=False``, no half-pixel centres, no antialiasing): output pixel i is
    read at i * H / size, so that the picture is shifted by up to half a pixel against every later convention, and the
    last pixels repeat the border. Its float32 operations in its order (`resize_bilinear_op.cc`): first along the width,
    then along the height, each left + (right - left) * weight.
    """
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images.float()
    left, right, weight = _taps(width, size, images.device)
    images = images.float()
    wide = _between(images.index_select(3, left), images.index_select(3, right), weight)
    top, bottom, weight = _taps(height, size, images.device)
    return _between(wide.index_select(2, top), wide.index_select(2, bottom), weight[:, None])


def _between(start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    return end.sub_(start).mul_(weight).add_(start)


@lru_cache(maxsize=16)
def _taps(size_in: int, size_out: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each output pixel the two input pixels it lies between (int64), and the second one's weight (float32)."""
    scale = torch.tensor(size_in, dtype=torch.float32) / torch.tensor(size_out, dtype=torch.float32)
    place = torch.arange(size_out, dtype=torch.float32) * scale
    lower = place.floor()
    upper = place.ceil().clamp(max=size_in - 1)
    return lower.long().to(device), upper.long().to(device), (place - lower).to(device)
