"""The one place where a picture file is opened: which formats, and how its pixels become RGB in 8 bits."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from lwd.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What counts as a picture, in any case of letters: torchvision's list, so that labels agree with its ImageFolder."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF")
"""What is opened, whatever the file is called; never PostScript and the like, which Pillow hands to other programs."""

WHITE = (255, 255, 255)

_STRIP_PIXELS = 2**18
_BITS_TAG, _PHOTOMETRIC_TAG, _WHITE_IS_ZERO = 258, 262, 0
"""Of TIFF."""


class ImageError(Exception):
    """One image that cannot be read or decoded: its name and the reason, in one line."""


class Picture(NamedTuple):
    """A picture decoded in full, in its own mode; of several frames the first."""

    image: Image.Image
    animated: bool
    """Whether the file has several frames."""
    deep: bool
    """Whether the file has more than 8 bits a channel; Pillow opens some of those as if they had 8."""


def is_image(name: str) -> bool:
    """Whether the name ends as an image file does."""
    return name.lower().endswith(EXTENSIONS)


def open_picture(path: Path, name: str) -> Picture:
    """Decode a file, called ``name`` in errors. Raises ImageError, also for a pipe or a device, which is not read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ImageError(f"{name}: no file that holds a picture, but a pipe, socket or device")
            return decode(file, name)
    except OSError as error:
        raise unreadable(error, name) from error


def decode(file: BinaryIO, name: str, formats: tuple[str, ...] = FORMATS) -> Picture:
    """Decode a whole image; raises ImageError with ``name`` where it is cut short, damaged or beyond Pillow's limit.

    Of a damaged JPEG, Pillow reports a missing end but not garbled data in between. `PIL.Image.Image.draft`, which
    lets JPEGs be decoded at a reduced size, is not used: its pixels differ from ADM's.
    """
    try:
        image = Image.open(file, formats=formats)
        animated = bool(getattr(image, "is_animated", False))
        deep = image.mode[0] in "IF" or any(";16" in str(tile[3]) for tile in image.tile)
        image.load()
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image in a format that is read ({', '.join(formats)})") from None
    except Exception as error:  # Pillow's decoders raise whatever they trip over in a damaged file
        raise ImageError(f"{name}: {_one_line(error)}") from error
    return Picture(image, animated, deep)


def to_rgb(image: Image.Image, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """RGB in 8 bits: deeper grey scaled by its depth, what is transparent laid on ``background``, EXIF rotation not
    applied. Raises ImageError for a mode without RGB, and for numbers whose depth the file does not say."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    image = _eight_bits(image)
    try:
        if not image.has_transparency_data:
            return image.convert("RGB")
        image = image.convert("LA") if image.mode == "La" else image
        over = image.convert("RGBA")
    except ValueError as error:
        raise ImageError(f"mode {image.mode} cannot be converted to RGB") from error
    return Image.alpha_composite(Image.new("RGBA", over.size, (*background, 255)), over).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits -> L, or LA where one of its levels is transparent; any other mode as it is."""
    if image.mode[0] not in "IF":
        return image
    tags = getattr(image, "tag_v2", {})
    if image.mode == "F" or (image.mode == "I" and tags):
        raise ImageError(f"mode {image.mode}: numbers whose depth the file does not say; store it in 8 or 16 bits")
    bits = tags.get(_BITS_TAG, 16)
    most = 2 ** int(bits[0] if isinstance(bits, tuple) else bits) - 1
    levels = np.asarray(image)
    grey = np.empty(levels.shape, np.uint8)
    rows = max(1, _STRIP_PIXELS // levels.shape[1])
    for strip in (slice(start, start + rows) for start in range(0, len(levels), rows)):  # for the memory of int64
        grey[strip] = ((2 * 255 * levels[strip].astype(np.int64) + most) // (2 * most)).clip(0, 255)  # rounded, half up
    grey = 255 - grey if tags.get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO else grey
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return Image.fromarray(grey)
    alpha = np.where(levels == clear, 0, 255).astype(np.uint8)
    return Image.fromarray(np.dstack([grey, alpha]))


def unreadable(error: OSError, name: str) -> ImageError:
    """The ImageError for a file that the system does not hand out."""
    return ImageError(f"{name}: {error.strerror or _one_line(error)}")


def flat_picture(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The pixels (H, W, 3) of a picture whose numbers are to be measured as they are stored.

    Raises UserError for what is no picture, has more than 8 bits a channel, or is transparent in places.
    """
    try:
        picture = open_picture(path, "")
        if picture.deep:
            raise UserError(f"{path}: has more than 8 bits a channel; store it in 8")
        image = picture.image
        if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
            raise UserError(f"{path}: is transparent in places; lay it on a background first")
        return np.asarray(to_rgb(image))
    except ImageError as error:
        reason = str(error).removeprefix(": ")
        raise UserError(f"{path}: not a readable picture ({reason})") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
