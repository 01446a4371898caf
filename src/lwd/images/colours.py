"""Latents in colour, for people to look at."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

_FRAMES = 8
"""Of a video or volume so many frames are shown, evenly spread."""
_STRIP = 8
"""A sequence is shown as a strip so many times as long as it is high."""
_RANGE = 2.5
"""Standard deviations of a latent that the colours span."""
_CHROMA, _LIGHTNESS, _LIGHTNESS_SPAN = 0.17, 0.72, 0.22
_OKLAB_TO_LMS = (
    (1.0, 0.3963377774, 0.2158037573),
    (1.0, -0.1055613458, -0.0638541728),
    (1.0, -0.0894841775, -1.291485548),
)
_LMS_TO_RGB = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.707614701),
)


class LatentColours:
    """A colour for every latent vector: up to three principal directions, as axes of the perceptual space Oklab.

    Grey is the mean of the data. One direction runs from blue to yellow; two span hue (direction) and saturation
    (distance from the mean); a third is lightness.
    """

    def __init__(self, mean: Tensor, axes: Tensor, spread: Tensor) -> None:
        self._mean, self._axes, self._spread = mean, axes, spread

    @classmethod
    def fit(cls, latents: Tensor) -> Self:
        """From the vectors of latents (N, C, ...); one and two channels are taken as they are."""
        vectors = latents.movedim(1, -1).flatten(0, -2).double()
        mean = vectors.mean(0)
        channels = vectors.shape[1]
        axes = torch.eye(channels, dtype=torch.float64)
        if channels > 2:
            axes = torch.linalg.svd(vectors - mean, full_matrices=False)[2][:3]
        spread = ((vectors - mean) @ axes.T).std(0).clamp(min=1e-6)
        return cls(mean, axes, spread)

    def __call__(self, latents: Tensor) -> Tensor:
        """Latents (N, C, ...) -> images (N, 3, H, W) in [-1, 1].

        One pixel for every position: (C, H, W) at its own size, a sequence (C, L) as a strip, the frames of
        (C, T, H, W) side by side, a vector (C,) as one pixel.
        """
        vectors = latents.movedim(1, -1).double()
        x = (((vectors - self._mean) @ self._axes.T) / (_RANGE * self._spread)).clamp(-1, 1)
        zero = torch.zeros_like(x[..., 0])
        a, b, lightness = (*x.unbind(-1), zero, zero)[:3] if x.shape[-1] > 1 else (zero, x[..., 0], zero)
        lab = torch.stack([_LIGHTNESS + _LIGHTNESS_SPAN * lightness, _CHROMA * a, _CHROMA * b], dim=-1)
        return _as_images((2 * _oklab_to_srgb(lab) - 1).movedim(-1, 1).float())


def _as_images(colours: Tensor) -> Tensor:
    """Colours (N, 3, ...) -> images (N, 3, H, W)."""
    if colours.ndim == 2:
        return colours[..., None, None]
    if colours.ndim == 3:
        return colours[:, :, None].expand(-1, -1, max(1, round(colours.shape[-1] / _STRIP)), -1)
    if colours.ndim == 4:
        return colours
    frames = colours.flatten(2, -3)
    count = frames.shape[2]
    shown = frames[:, :, torch.linspace(0, count - 1, min(count, _FRAMES)).round().long()]
    return shown.transpose(2, 3).flatten(3)


def _oklab_to_srgb(lab: Tensor) -> Tensor:
    """Oklab (..., 3) -> sRGB (..., 3) in [0, 1], clipped (Ottosson 2020)."""
    lms = (lab @ lab.new_tensor(_OKLAB_TO_LMS).T) ** 3
    linear = (lms @ lms.new_tensor(_LMS_TO_RGB).T).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=1e-9) ** (1 / 2.4) - 0.055)
