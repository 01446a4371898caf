"""Images to look at: contact sheets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lwd.files import atomic_path


def to_uint8(images: Tensor) -> Tensor:
    """Images (N, c, H, W) in [-1, 1] -> uint8, clipped and rounded."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_unit(images: Tensor) -> Tensor:
    """uint8 images -> float32 in [-1, 1]; floating-point ones are that already."""
    return images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images


def grid(images: Tensor, columns: int = 10, gap: int = 1) -> Tensor:
    """Images (N, c, H, W) in [-1, 1], c 1 or 3, row by row on a light ground: uint8 (c, rows, columns)."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    sheet = torch.full((channels, rows * (height + gap) + gap, columns * (width + gap) + gap), 238, dtype=torch.uint8)
    for i, image in enumerate(to_uint8(images)):
        y, x = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        sheet[:, y : y + height, x : x + width] = image
    return sheet


def side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Images (N, c, h, w) of several sizes -> (N, c, H, W), a light gap of 1 between them.

    Lower ones are enlarged a whole number of times, as often as they fit into the height of the highest.
    """
    height, shown = max(part.shape[-2] for part in parts), []
    for part in parts:
        times = height // part.shape[-2]
        enlarged = part.repeat_interleave(times, -2).repeat_interleave(times, -1)
        shown.append(F.pad(enlarged, (0, 1, 0, height - enlarged.shape[-2]), value=1.0))
    return torch.cat(shown, dim=-1)[..., :-1]


def save_grid(images: Tensor, path: Path, columns: int = 10, scale: int | None = None) -> None:
    """Write a contact sheet as PNG, images enlarged ``scale`` times (default: to about 64 pixels) without blur."""
    sheet = grid(images, columns)
    pixels = sheet[0].numpy() if len(sheet) == 1 else sheet.permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels)
    factor = scale or max(1, 64 // images.shape[-1])
    with atomic_path(path) as temporary:
        picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST).save(
            temporary, "PNG"
        )
