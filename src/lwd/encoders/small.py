"""Small classifiers trained on the spot: `SmallViT` gives semantic features, `SmallCNN` judges samples.

They play the parts of DINOv2 and of Inception where images are too small for either. Both are plain modules,
images (N, c, H, W) in [-1, 1] -> logits; `train_classifier` trains either, deterministically.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lwd.encoders.downsample import area_average
from lwd.encoders.training import Pause, train_briefly
from lwd.runtime.seeding import Stream, batch_indices, uniform


class SmallViT(nn.Module):
    """A vision transformer on 2x2 patches with a class token (Dosovitskiy et al., arXiv 2010.11929).

    Two 3x3 convolutions precede the patch embedding (Xiao et al., arXiv 2106.14881): on the digits they raise the
    held-out accuracy from 97 to 99 %. The logits come from the class token, which leaves patch tokens free to differ
    from each other, as DINOv2's do. Of the variance of their two leading principal components, 3 to 16 % (by seed) is
    between positions of one image; the mean over patches in the class token's stead would leave 1 to 2 %.

    Larger images are averaged down to ``image_size`` first: a patch is then as many times larger. Raises ValueError for
    an odd ``image_size``.
    """

    patch = 2

    def __init__(
        self,
        width: int = 64,
        depth: int = 3,
        classes: int = 10,
        *,
        heads: int = 4,
        image_channels: int = 1,
        image_size: int = 8,
    ) -> None:
        super().__init__()
        if image_size % self.patch:
            raise ValueError(f"patches of {self.patch} do not tile images of {image_size}")
        self.image_size, self.grid = image_size, image_size // self.patch
        stem = width // 2
        self.embed = nn.Sequential(
            nn.Conv2d(image_channels, stem, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(stem, stem, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(stem, width, self.patch, stride=self.patch),
        )
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 1 + self.grid**2, width) * 0.02)
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, c, H, W) -> logits (N, classes)."""
        logits: Tensor = self.head(self.pooled(images))
        return logits

    def pooled(self, images: Tensor) -> Tensor:
        """Images (N, c, H, W) -> the final normalised class token (N, D)."""
        return self._tokens(images)[:, 0]

    def patch_features(self, images: Tensor) -> Tensor:
        """Images (N, c, H, W) -> the final normalised patch tokens (N, D, h, h), h = ``grid``; each has seen the whole.

        Raises ValueError for images that are no whole number of times as large as ``image_size``.
        """
        patches = self._tokens(images)[:, 1:].transpose(1, 2)
        return patches.reshape(len(images), -1, self.grid, self.grid)

    def _tokens(self, images: Tensor) -> Tensor:
        """The class token, then the patches in row-major order: (N, 1 + h w, D)."""
        patches = self.embed(area_average(images, self.image_size)).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1) + self.position
        out: Tensor = self.norm(self.blocks(tokens))
        return out


class _Block(nn.Module):
    """Pre-norm transformer block, MLP ratio 2: (N, L, D) -> (N, L, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(approximate="tanh"), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1))  # (N, L, 3, heads, D / heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class SmallCNN(nn.Module):
    """Four 3x3 convolutions, two poolings, and ``channels`` features before the logits: the evaluation network.

    Of another kind than `SmallViT`, so that what makes the latents does not also mark them. Its features are few,
    since a covariance (the Fréchet distance) has to be estimated from some hundred held-out images. With
    ``image_size``, larger images are averaged down to it first.
    """

    def __init__(
        self, channels: int = 32, classes: int = 10, *, image_channels: int = 1, image_size: int | None = None
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.net = nn.Sequential(
            *_convolution(image_channels, 32),
            *_convolution(32, 32),
            nn.MaxPool2d(2),
            *_convolution(32, 64),
            *_convolution(64, 64),
            nn.AdaptiveMaxPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * 64, channels),
        )
        self.head = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, c, H, W) -> logits (N, classes)."""
        logits: Tensor = self.head(self.pooled(images))
        return logits

    def pooled(self, images: Tensor) -> Tensor:
        """Images (N, c, H, W) -> the features before the last layer (N, channels)."""
        features: Tensor = self.net(images if self.image_size is None else area_average(images, self.image_size))
        return features


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def train_classifier(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 400,
    batch: int = 64,
    lr: float = 3e-3,
    weight_decay: float = 0.05,
    distortion: float = 0.0,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    pause: Pause | None = None,
) -> bool:
    """Train ``model`` in place with cross entropy on images (N, c, H, W), labels (N,); leaves it in evaluation mode.

    Returns whether it is done; see `train_briefly`. Order and distortion (see `distort`) are functions of (seed, step).
    """

    def loss(step: int) -> Tensor:
        rows = batch_indices(seed, step, batch, len(images)).to(images.device)
        x = distort(images[rows], distortion, seed, step) if distortion else images[rows]
        return F.cross_entropy(model(x), labels[rows])

    return train_briefly(model, loss, steps=steps, lr=lr, weight_decay=weight_decay, progress=progress, pause=pause)


def distort(images: Tensor, strength: float, seed: int, step: int) -> Tensor:
    """A random affine map of each image (N, c, H, W) in [-1, 1]; what comes into view is -1, whatever their own ground.

    The map's six numbers differ from the identity's by U(-strength, strength), translations in units of half an image.
    """
    place = torch.arange(len(images), device=images.device)
    change = (2 * uniform(Stream.ENCODER, seed, step, place, (2, 3)) - 1) * strength
    grid = F.affine_grid(torch.eye(2, 3, device=images.device) + change, list(images.shape), align_corners=False)
    return F.grid_sample(images + 1, grid, align_corners=False) - 1
