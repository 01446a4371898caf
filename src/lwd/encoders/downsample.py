"""A low-resolution copy of the picture, exact means of square blocks: a group, or what a small network sees."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def area_average(images: Tensor, size: int) -> Tensor:
    """Images (N, c, H, H) -> (N, c, size, size), each pixel the mean of the (H / size)^2 under it; as they are at H.

    Raises ValueError where ``size`` divides H or W not, or they differ.
    """
    height, width = images.shape[-2:]
    if height == width == size:
        return images
    if height != width or height % size:
        raise ValueError(f"images of shape {tuple(images.shape)} are not whole blocks of pixels at {size} x {size}")
    return F.avg_pool2d(images, height // size)


class Downsample:
    """The picture itself at 1 / ``factor`` of its size, in place of a network's patch features: coarse, then fine.

    Its encoding is a linear function of the texture's pixels, so what is decoded is the texture alone.
    """

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def patch_features(self, images: Tensor) -> Tensor:
        """Images (N, c, H, H) -> (N, c, H/f, H/f). Raises ValueError where f divides H not."""
        if images.shape[-1] % self.factor:
            raise ValueError(f"factor {self.factor} does not divide images of shape {tuple(images.shape)}")
        return area_average(images, images.shape[-1] // self.factor)


class Unchanged:
    """The compressor of features that are few already."""

    def encode(self, features: Tensor) -> Tensor:
        """Features (N, D, h, w) as they are."""
        return features
