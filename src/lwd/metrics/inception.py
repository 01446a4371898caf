"""The Inception-v3 graph of 2015-12-05 that FID, sFID and Inception Score are defined by, without TensorFlow.

Its differences from the architecture as published (Szegedy et al. 2016) and as trained later: average pools leave the
padding out of the mean, the pool of the last block is a maximum, and there are 1008 classes. Module names are those of
the PyTorch port in which the weights circulate (`lwd.metrics.inception_weights`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lwd.files import checksum
from lwd.metrics.checks import full_float32
from lwd.metrics.inception_weights import PUBLISHED_SHA256, check_weights, published_weights, read_weights
from lwd.metrics.resize import tf1_resize_bilinear

SIZE = 299
"""Pixels a side of the network's input."""
SPATIAL_CHANNELS = 7


class InceptionFeatures(NamedTuple):
    """Features of N images, float32: ``pool`` (N, 2048), ``spatial`` (N, 2023), ``logits`` (N, 1008)."""

    pool: Tensor
    spatial: Tensor
    logits: Tensor


class FidInception(nn.Module):
    """Images (N, 3, H, W) uint8 in [0, 255] -> `InceptionFeatures`, as ADM's evaluator takes them.

    ``pool`` is the 8x8 mean (`pool_3`); ``spatial`` the first 7 channels of the 17x17 map `mixed_6/conv` (Mixed_6d's
    1x1 branch, after its ReLU) in TensorFlow's order: row, column, channel; ``logits`` leave out the bias. Images are
    resized to 299 as TensorFlow 1 does, then (x - 128) / 128.

    ``weights``: a file that `read_weights` takes, or None for random ones (to be filled with ``load_state_dict``);
    `published` finds the weights that the field uses. Always in evaluation mode, in full float32, without gradients.
    ``sha256`` is that of the file. Raises UserError for a file that does not hold this network.
    """

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3)
        self.Mixed_5b = _BlockA(192, pool=32)
        self.Mixed_5c = _BlockA(256, pool=64)
        self.Mixed_5d = _BlockA(288, pool=64)
        self.Mixed_6a = _BlockB(288)
        self.Mixed_6b = _BlockC(128)
        self.Mixed_6c = _BlockC(160)
        self.Mixed_6d = _BlockC(160)
        self.Mixed_6e = _BlockC(192)
        self.Mixed_7a = _BlockD()
        self.Mixed_7b = _BlockE(1280, _mean_pool)
        self.Mixed_7c = _BlockE(2048, _max_pool)
        self.fc = nn.Linear(2048, 1008)
        self.sha256: str | None = None
        self.requires_grad_(False).eval()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # a fifth faster on a CPU, and what GPUs like
                module.weight.data = module.weight.contiguous(memory_format=torch.channels_last)
        if weights is not None:
            path = Path(weights)
            state = read_weights(path)
            check_weights(state, self.state_dict(), path)
            self.load_state_dict(state, strict=False)  # what may be absent, batch counters, is not used
            self.sha256 = checksum(path)

    @classmethod
    def published(cls, weights: str | Path | None = None, download: bool = False, section: str = "evaluate") -> Self:
        """Make the network with the weights at a path, else with those that `published_weights` finds or downloads."""
        return cls(weights if weights is not None else published_weights(download, section))

    @property
    def is_published(self) -> bool:
        """Whether the weights came from the very file that the field uses."""
        return self.sha256 == PUBLISHED_SHA256

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode: an instrument is not trained."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> InceptionFeatures:
        """Features of images (N, 3, H, W) uint8; raises ValueError for anything else."""
        if images.dtype != torch.uint8:
            raise ValueError(f"images must be uint8 in [0, 255], got {images.dtype}")
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
            raise ValueError(f"images must have shape (N, 3, height, width), got {tuple(images.shape)}")
        with full_float32(images.device):
            x = tf1_resize_bilinear(images, SIZE).sub_(128).mul_(1 / 128)
            return self._features(x.contiguous(memory_format=torch.channels_last))

    def _features(self, x: Tensor) -> InceptionFeatures:
        """x (N, 3, 299, 299), scaled. Maps are 35x35 in the blocks 5, 17x17 in the blocks 6, 8x8 in the blocks 7."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_6d(x)  # its 1x1 branch comes first in the concatenation
        spatial = x[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(self.Mixed_6e(x))))
        pool = x.mean((2, 3))
        return InceptionFeatures(pool, spatial, F.linear(pool, self.fc.weight))


class _Conv(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int | tuple[int, int], **options: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, bias=False, **options)
        self.bn = nn.BatchNorm2d(channels_out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv(x))
        return y.relu_()


def _same(channels_in: int, channels_out: int, kernel: tuple[int, int]) -> _Conv:
    """A convolution that keeps the size of the map."""
    return _Conv(channels_in, channels_out, kernel, padding=(kernel[0] // 2, kernel[1] // 2))


def _mean_pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


class _BlockA(nn.Module):
    """35x35: (N, C, 35, 35) -> (N, 224 + pool, 35, 35)."""

    def __init__(self, channels: int, pool: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(channels, 64, 1)
        self.branch5x5_1 = _Conv(channels, 48, 1)
        self.branch5x5_2 = _same(48, 64, (5, 5))
        self.branch3x3dbl_1 = _Conv(channels, 64, 1)
        self.branch3x3dbl_2 = _same(64, 96, (3, 3))
        self.branch3x3dbl_3 = _same(96, 96, (3, 3))
        self.branch_pool = _Conv(channels, pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        five = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(_mean_pool(x))], 1)


class _BlockB(nn.Module):
    """35x35 to 17x17: (N, C, 35, 35) -> (N, 480 + C, 17, 17)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = _Conv(channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = _Conv(channels, 64, 1)
        self.branch3x3dbl_2 = _same(64, 96, (3, 3))
        self.branch3x3dbl_3 = _Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)], 1)


class _BlockC(nn.Module):
    """17x17: (N, 768, 17, 17) -> the same; 7x7 convolutions in two directions, ``width`` channels between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(768, 192, 1)
        self.branch7x7_1 = _Conv(768, width, 1)
        self.branch7x7_2 = _same(width, width, (1, 7))
        self.branch7x7_3 = _same(width, 192, (7, 1))
        self.branch7x7dbl_1 = _Conv(768, width, 1)
        self.branch7x7dbl_2 = _same(width, width, (7, 1))
        self.branch7x7dbl_3 = _same(width, width, (1, 7))
        self.branch7x7dbl_4 = _same(width, width, (7, 1))
        self.branch7x7dbl_5 = _same(width, 192, (1, 7))
        self.branch_pool = _Conv(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_mean_pool(x))], 1)


class _BlockD(nn.Module):
    """17x17 to 8x8: (N, 768, 17, 17) -> (N, 1280, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = _Conv(768, 192, 1)
        self.branch3x3_2 = _Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1 = _Conv(768, 192, 1)
        self.branch7x7x3_2 = _same(192, 192, (1, 7))
        self.branch7x7x3_3 = _same(192, 192, (7, 1))
        self.branch7x7x3_4 = _Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([three, seven, F.max_pool2d(x, 3, stride=2)], 1)


class _BlockE(nn.Module):
    """8x8: (N, C, 8, 8) -> (N, 2048, 8, 8), with a mean or a maximum as ``pool``."""

    def __init__(self, channels: int, pool: Any) -> None:
        super().__init__()
        self.pool = pool
        self.branch1x1 = _Conv(channels, 320, 1)
        self.branch3x3_1 = _Conv(channels, 384, 1)
        self.branch3x3_2a = _same(384, 384, (1, 3))
        self.branch3x3_2b = _same(384, 384, (3, 1))
        self.branch3x3dbl_1 = _Conv(channels, 448, 1)
        self.branch3x3dbl_2 = _same(448, 384, (3, 3))
        self.branch3x3dbl_3a = _same(384, 384, (1, 3))
        self.branch3x3dbl_3b = _same(384, 384, (3, 1))
        self.branch_pool = _Conv(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [
            self.branch1x1(x),
            self.branch3x3_2a(three),
            self.branch3x3_2b(three),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(self.pool(x)),
        ]
        return torch.cat(parts, 1)
