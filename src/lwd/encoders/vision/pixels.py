"""What a vision transformer wants of an image: its range, its size, its mean and standard deviation."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lwd.errors import UserError
from lwd.records import read_mapping

Resize = Literal["bilinear", "bicubic"]
Colour = tuple[float, float, float]
MeanStd = tuple[Colour, Colour]

IMAGENET: MeanStd = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP: MeanStd = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF: MeanStd = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

PREPROCESSOR = "preprocessor_config.json"
_RESAMPLE: dict[Any, Resize] = {2: "bilinear"}  # Pillow's number; whatever else there is becomes bicubic
_BYTE = 1 / 255


def unit_pixels(images: Tensor, device: torch.device) -> Tensor:
    """Images, uint8 or in [-1, 1], as float32 in [0, 1]. Raises ValueError for integers other than uint8."""
    if images.dtype == torch.uint8:
        return images.to(device).float() / 255
    if not images.is_floating_point():
        raise ValueError(f"images are uint8 or floating-point in [-1, 1], got {images.dtype}")
    return (images.to(device).float() + 1) / 2


def normalised(pixels: Tensor, mean: Colour, std: Colour) -> Tensor:
    """Pixels (N, 3, H, W) in [0, 1], less ``mean`` and divided by ``std``, colour by colour."""
    shift, scale = (torch.tensor(values, device=pixels.device)[:, None, None] for values in (mean, std))
    return (pixels - shift) / scale


@dataclass(frozen=True)
class Preprocessing:
    """A model's own, but for the crop: its patches are to lie over the whole image.

    ``source`` says where it is from.
    """

    mean: Colour
    std: Colour
    resize: Resize
    source: str

    def __call__(self, images: Tensor, size: int, device: torch.device) -> Tensor:
        """Images (N, 1 or 3, H, W), uint8 or in [-1, 1] -> the model's input (N, 3, size, size), float32.

        Grey is shown in all three colours. The resize filters where it makes smaller (antialiasing, as Pillow and
        transformers' image processors do), and what it makes of a pixel stays in [0, 1].
        """
        pixels = unit_pixels(images, device).expand(-1, 3, -1, -1)
        if pixels.shape[-2:] != (size, size):
            pixels = F.interpolate(pixels, (size, size), mode=self.resize, antialias=True, align_corners=False)
        return normalised(pixels.clamp(0, 1), self.mean, self.std)

    def facts(self) -> dict[str, Any]:
        """For manifests."""
        return asdict(self)


def read_preprocessing(folder: Path, default: MeanStd) -> Preprocessing:
    """Mean, standard deviation and kind of resize in a folder's preprocessor_config.json, as transformers writes it.

    ``default`` and a bicubic resize stand in for what it leaves open and for a file that is not there. Raises UserError
    for values that are none, and where images are not divided by 255.
    """
    path = folder / PREPROCESSOR
    if not path.is_file():
        return Preprocessing(*default, "bicubic", "the model family's usual")
    found = read_mapping(
        path, "the config of an image processor", f"remove it, and {default[0]}, {default[1]} are used"
    )
    if not math.isclose(_number(found.get("rescale_factor", _BYTE)), _BYTE, rel_tol=1e-3):
        raise UserError(f"{path}: rescale_factor is {found['rescale_factor']!r}; only images divided by 255 are known")
    if found.get("do_normalize", True):
        mean = _colour(path, "image_mean", found.get("image_mean") or default[0])
        std = _colour(path, "image_std", found.get("image_std") or default[1])
        if min(std) <= 0:
            raise UserError(f"{path}: image_std {list(std)} must be above 0")
    else:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    resample = found.get("resample")
    resize = _RESAMPLE.get(resample, "bicubic") if isinstance(resample, int) else "bicubic"
    return Preprocessing(mean, std, resize, path.name)


def _colour(path: Path, key: str, value: Any) -> Colour:
    values = tuple(_number(one) for one in value) if isinstance(value, list | tuple) else ()
    if len(values) != 3 or not all(map(math.isfinite, values)):
        raise UserError(f"{path}: {key} must be three numbers, got {value!r}")
    return values


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf
