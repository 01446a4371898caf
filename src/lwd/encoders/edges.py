"""Where a picture changes: the length of its Sobel gradient, averaged over square blocks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lwd.encoders.downsample import area_average

_SMOOTH, _DIFFERENCE = torch.tensor([1.0, 2.0, 1.0]) / 4, torch.tensor([-1.0, 0.0, 1.0]) / 2


class Edges:
    """One channel, in place of a network's features: |gradient| of the grey picture, its mean over f x f pixels.

    The gradient is Sobel's, per pixel: of a ramp that rises by 0.1 from pixel to pixel it is 0.1. Beyond the border the
    outermost pixels are repeated. Grey is the mean of the colours.
    """

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def patch_features(self, images: Tensor) -> Tensor:
        """Images (N, c, H, H) -> (N, 1, H/f, H/f). Raises ValueError where f divides H not."""
        if images.shape[-1] % self.factor:
            raise ValueError(f"factor {self.factor} does not divide images of shape {tuple(images.shape)}")
        grey = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        across = torch.outer(_SMOOTH, _DIFFERENCE).to(grey)
        x, y = F.conv2d(grey, torch.stack([across, across.T])[:, None]).unbind(1)
        return area_average(torch.hypot(x, y)[:, None], images.shape[-1] // self.factor)
