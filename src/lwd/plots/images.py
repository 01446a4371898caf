"""Pictures as data URIs: contact sheets with see-through gaps."""

from __future__ import annotations

import base64
import io

import torch
from PIL import Image
from torch import Tensor

from lwd.images.sheets import grid

_CELL_PIXELS = 64
_LARGEST_CELL = 128
_WHITE = 255


def sheet(images: Tensor, columns: int, gap: int = 1) -> str:
    """Lay out images (N, c, H, W) in [-1, 1], c 1 or 3, row by row on a see-through ground: a PNG as data URI."""
    pixels = grid(images, columns, gap)
    shown = grid(torch.ones_like(images[:, :1]), columns, gap) == _WHITE
    rgb = pixels.expand(3, -1, -1)
    rgba = torch.cat([rgb, shown.to(torch.uint8) * _WHITE])
    picture = Image.fromarray(rgba.permute(1, 2, 0).contiguous().numpy())
    side = max(images.shape[-2:])
    enlarged = max(1, _CELL_PIXELS // side)
    size = (picture.width * enlarged, picture.height * enlarged)
    if side > _LARGEST_CELL:
        scale = _LARGEST_CELL / side
        size = (round(picture.width * scale), round(picture.height * scale))
    return _data_uri(picture.resize(size, Image.Resampling.NEAREST if enlarged > 1 else Image.Resampling.LANCZOS))


def tile(image: Tensor) -> str:
    """Encode one image (c, H, W) in [-1, 1] as data URI, at its own size; the page enlarges it."""
    return _data_uri(
        _downscaled(
            Image.fromarray(grid(image[None].expand(-1, 3, -1, -1), 1, 0).permute(1, 2, 0).contiguous().numpy())
        )
    )


def _downscaled(picture: Image.Image) -> Image.Image:
    if max(picture.size) > _LARGEST_CELL:
        picture.thumbnail((_LARGEST_CELL, _LARGEST_CELL))
    return picture


def _data_uri(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
