"""Edges against scipy's Sobel, and on a ramp."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import sobel

from lwd.encoders.edges import Edges


def test_block_means_of_the_length_of_sobels_gradient() -> None:
    """scipy's filter is eight times the gradient; float32 against float64."""
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = Edges(4).patch_features(images)
    assert found.shape == (2, 1, 3, 3) and found.dtype == torch.float32
    grey = images.double().mean(1).numpy()
    for picture, edges in zip(grey, found, strict=True):
        length = np.hypot(sobel(picture, 0, mode="nearest"), sobel(picture, 1, mode="nearest")) / 8
        blocks = torch.from_numpy(length.reshape(3, 4, 3, 4).mean((1, 3)))
        torch.testing.assert_close(edges[0].double(), blocks, rtol=1e-5, atol=1e-6)


def test_a_ramp_has_its_slope() -> None:
    ramp = (0.1 * torch.arange(8.0) - 0.4).expand(1, 1, 8, 8)
    torch.testing.assert_close(Edges(2).patch_features(ramp)[..., 1:3], torch.full((1, 1, 4, 2), 0.1))
    with pytest.raises(ValueError, match="factor 3 does not divide"):
        Edges(3).patch_features(ramp)
