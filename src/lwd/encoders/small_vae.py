"""A small convolutional VAE that is trained on the spot: texture where no pretrained VAE is at hand.

Kingma and Welling (arXiv 1312.6114), with the residual blocks of latent diffusion's autoencoder (arXiv 2112.10752) but
neither its attention nor its perceptual and adversarial losses: reconstructions are blurred where it cannot keep up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lwd.encoders.posterior import LOGVAR_RANGE, Posterior
from lwd.encoders.training import Pause, train_briefly
from lwd.runtime.seeding import Stream, batch_indices, integer, normal, uniform

SMALL_VAE = "small-vae"
"""Its name in configs and manifests."""
CROP = 64
"""Pixels of the crops that it is trained on, along either side; it is convolutional, so larger images cost no more."""
_PATCH, _WIDTH, _WIDEST, _NORM_GROUPS = 4, 48, 96, 8


class SmallVAE(nn.Module):
    """Images (N, c, H, W) in [-1, 1] <-> latents (N, C, H/f, W/f); a `TextureEncoder`.

    ``factor`` f is a power of two, at least 2; ValueError otherwise. Up to 4x4 pixels are moved into channels first and
    back last, so that no convolution works at the images' full size: what makes it quick.
    """

    def __init__(self, channels: int, factor: int, image_channels: int = 3) -> None:
        super().__init__()
        if factor < 2 or factor & (factor - 1):
            raise ValueError(f"factor must be a power of two, at least 2, got {factor}")
        self.channels, self.factor, self.image_channels = channels, factor, image_channels
        patch = min(_PATCH, factor)
        pixels = image_channels * patch**2
        widths = [min(_WIDTH * 2**level, _WIDEST) for level in range((factor // patch).bit_length())]
        down: list[nn.Module] = [nn.PixelUnshuffle(patch), nn.Conv2d(pixels, widths[0], 3, padding=1)]
        up: list[nn.Module] = [nn.Conv2d(channels, widths[-1], 3, padding=1), _Residual(widths[-1])]
        for narrow, wide in pairwise(widths):
            down += [_Residual(narrow), nn.Conv2d(narrow, wide, 3, stride=2, padding=1)]
        for narrow, wide in reversed(list(pairwise(widths))):
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(wide, narrow, 3, padding=1), _Residual(narrow)]
        self.down = nn.Sequential(*down, _Residual(widths[-1]), *_last(widths[-1], 2 * channels))
        self.up = nn.Sequential(*up, *_last(widths[0], pixels), nn.PixelShuffle(patch))

    def posterior(self, images: Tensor) -> Posterior:
        """Images (N, c, H, W) -> the latents' Gaussian (N, C, H/f, W/f).

        Raises ValueError for another c, and where f divides H or W not.
        """
        if images.shape[1] != self.image_channels or images.shape[-2] % self.factor or images.shape[-1] % self.factor:
            f = self.factor
            raise ValueError(f"encodes (N, {self.image_channels}, {f} h, {f} w), got {tuple(images.shape)}")
        mean, logvar = self.down(images).chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(*LOGVAR_RANGE))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images (N, c, H, W) -> the posterior's mean (N, C, H/f, W/f)."""
        return self.posterior(images).mean

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, C, h, w) -> images (N, c, f h, f w), about [-1, 1], not clipped; ValueError for another C."""
        if latents.ndim != 4 or latents.shape[1] != self.channels:
            raise ValueError(f"decodes (N, {self.channels}, h, w), got {tuple(latents.shape)}")
        images: Tensor = self.up(latents)
        return images


class _Residual(nn.Module):
    """x + two normalised 3x3 convolutions: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(*_last(channels, channels), *_last(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)  # type: ignore[no-any-return]


def _last(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.GroupNorm(_NORM_GROUPS, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)


class Reconstruction(NamedTuple):
    """How well images come back: the root mean square error in grey levels of 255, and the KL in nats per image."""

    rmse: float
    kl: float

    @property
    def psnr(self) -> float:
        """The peak signal-to-noise ratio in dB; infinite for none."""
        return 20 * math.log10(255 / self.rmse) if self.rmse else math.inf


def train_vae(
    model: SmallVAE,
    images: Tensor,
    *,
    steps: int,
    kl_weight: float,
    seed: int,
    batch: int = 16,
    lr: float = 2e-3,
    progress: Callable[[int], None] | None = None,
    pause: Pause | None = None,
) -> bool:
    """Train ``model`` in place on images (N, c, H, W) uint8; leaves it in evaluation mode. Returns whether it is done.

    The loss is the mean squared error and ``kl_weight`` times the KL for each pixel value: but for its scale, the
    evidence bound under a Gaussian decoder of variance kl_weight / 2. See `train_briefly`; order, crops and noise are
    functions of (seed, step).
    """
    device, noise_seed = next(model.parameters()).device, integer(Stream.ENCODER, seed, 1)

    def loss(step: int) -> Tensor:
        rows = batch_indices(seed, step, batch, len(images))
        x = random_crops(images[rows], min(CROP, *images.shape[-2:]), seed, step).to(device)
        posterior = model.posterior(x)
        noise = normal(Stream.ENCODER, noise_seed, step, torch.arange(batch), tuple(posterior.mean.shape[1:]))
        restored = model.decode(posterior.sample(noise.to(device)))
        return F.mse_loss(restored, x) + kl_weight * posterior.kl().sum() / x.numel()

    return train_briefly(
        model, loss, steps=steps, lr=lr, weight_decay=1e-4, clip_norm=1.0, progress=progress, pause=pause
    )


def random_crops(images: Tensor, size: int, seed: int, step: int) -> Tensor:
    """A square of ``size`` pixels of each image (N, c, H, W) uint8, in [-1, 1]; which one depends on (seed, step)."""
    room = torch.tensor(images.shape[-2:]) - size + 1
    corners = (uniform(Stream.ENCODER, seed, step, torch.arange(len(images)), (2,)) * room).long().tolist()
    parts = [image[:, y : y + size, x : x + size] for image, (y, x) in zip(images, corners, strict=True)]
    return torch.stack(parts).float() / 127.5 - 1


@torch.inference_mode()
def reconstruction(model: SmallVAE, images: Tensor, batch: int = 32) -> Reconstruction:
    """How well images (N, c, H, W) uint8 come back from the posterior's mean, clipped to what pixels can show."""
    device, squares, kl = next(model.parameters()).device, 0.0, 0.0
    for chunk in torch.split(images, batch):
        x = chunk.to(device).float() / 127.5 - 1
        posterior = model.posterior(x)
        error = (model.decode(posterior.mean).clamp(-1, 1) - x) * 127.5
        squares += float(error.double().square().sum())
        kl += float(posterior.kl().double().sum())
    return Reconstruction(math.sqrt(squares / images.numel()), kl / len(images))
