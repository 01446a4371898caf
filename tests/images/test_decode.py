"""The one opener of pictures: each depth and kind of alpha against numbers worked by hand, and what is never opened."""

from __future__ import annotations

import io
import os
import re
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lwd
from lwd.errors import UserError
from lwd.images.crop import CroppedImages, centre_crop, collate
from lwd.images.decode import EXTENSIONS, FORMATS, ImageError, decode, flat_picture, open_picture, to_rgb
from lwd.images.folder import FolderSource
from lwd.images.tar import TarSource
from pictures import fill, noise, pack

RAMP = np.array([[0, 1, 127, 128, 254, 255]], np.uint8)
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


def rgb(data: bytes, background: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray:
    return np.asarray(to_rgb(decode(io.BytesIO(data), "x").image, background))


def grey(data: bytes) -> list[int]:
    """The first row; all three channels are equal."""
    pixels = rgb(data)
    assert (pixels == pixels[..., :1]).all()
    return [int(value) for value in pixels[0, :, 0]]


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_of_grey_are_scaled(kind: str) -> None:
    """257 x is the 16-bit level of the 8-bit level x, as 65535 = 257 * 255; others go to the nearest."""
    assert grey(saved(Image.fromarray(RAMP.astype(np.uint16) * 257), kind)) == RAMP[0].tolist()
    between = np.array([[128, 129, 65406, 65407]], np.uint16)  # 128.5 is half a level
    assert grey(saved(Image.fromarray(between), kind)) == [0, 1, 254, 255]


def test_depths_other_than_sixteen() -> None:
    """PGM of 10 bits: thirds of 1023 are thirds of 255. TIFF whose zero is white. 16-bit colours: their upper bytes."""
    assert grey(b"P5 4 1 1023\n" + np.array([0, 341, 682, 1023], ">u2").tobytes()) == [0, 85, 170, 255]
    levels = Image.fromarray(RAMP.astype(np.uint16) * 257)
    assert grey(saved(levels, "TIFF", tiffinfo={262: 0})) == [255 - value for value in RAMP[0].tolist()]
    colours = np.array([[[0, 0x1234, 0xFFFF]]], ">u2")
    assert rgb(b"P6 1 1 65535\n" + colours.tobytes())[0, 0].tolist() == [0, 0x12, 255]
    bits = Image.fromarray(np.array([[0, 255, 255]], np.uint8)).convert("1")
    assert grey(saved(bits, "PNG")) == grey(saved(bits, "TIFF")) == [0, 255, 255]


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_numbers_of_unknown_depth_are_an_error(kind: type) -> None:
    with pytest.raises(ImageError, match=r"mode [IF]: numbers whose depth the file does not say"):
        rgb(saved(Image.fromarray(np.ones((2, 2), kind)), "TIFF"))


def test_alpha_is_laid_on_the_background() -> None:
    """Of red 200 at alpha 0, 51 and 255 on white: 255, 255 - 55 / 5, 200. Under alpha 0 lies what no viewer shows."""
    red = np.array([[[200, 9, 9, 0], [200, 255, 255, 51], [200, 0, 0, 255]]], np.uint8)
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        data = saved(Image.fromarray(red), kind, **options)
        assert rgb(data)[0, :, 0].tolist() == [255, 244, 200]
        assert rgb(data, (10, 20, 30))[0, :2].tolist() == [[10, 20, 30], [48, 67, 75]]
    two = np.array([[[40, 0], [40, 255]]], np.uint8)
    assert grey(saved(Image.fromarray(two), "PNG")) == [255, 40]


def test_one_level_or_palette_entry_that_is_transparent() -> None:
    for array in (np.array([[0, 7, 9]], np.uint8), np.array([[0, 7, 9]], np.uint16) * 257):
        data = saved(Image.fromarray(array), "PNG", transparency=int(array[0, 1]))
        assert grey(data) == [0, 255, 9]
    colour = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    assert rgb(saved(Image.fromarray(colour), "PNG", transparency=(4, 5, 6)))[0].tolist() == [[1, 2, 3], [255] * 3]
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    palette.putpalette([10, 10, 10, 20, 20, 20, 30, 30, 30])
    assert grey(saved(palette, "PNG", transparency=bytes([255, 0, 255]))) == [10, 255, 30]
    assert grey(saved(palette, "GIF", transparency=1)) == [10, 255, 30]


def test_opaque_alpha_changes_no_pixel() -> None:
    image = noise(40, 30)
    with_alpha = image.copy()
    with_alpha.putalpha(255)
    assert np.array_equal(np.asarray(to_rgb(with_alpha)), np.asarray(image))
    assert to_rgb(image) is image


def test_cmyk_and_several_frames(tmp_path: Path) -> None:
    """A frame other than the first is never seen, and counted; CMYK as Pillow has it."""
    cmyk = Image.new("CMYK", (2, 2), (255, 0, 0, 0))
    assert rgb(saved(cmyk, "TIFF"))[0, 0].tolist() == [0, 255, 255]
    first, second = noise(6, 6, 1), noise(6, 6, 2)
    (tmp_path / "a").mkdir()
    for number, (kind, options) in enumerate((("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}))):
        data = saved(first, kind, save_all=True, append_images=[second], **options)
        assert np.array_equal(rgb(data), np.asarray(first)) and decode(io.BytesIO(data), "x").animated
        assert not decode(io.BytesIO(saved(first, kind, **options)), "x").animated
        (tmp_path / "a" / f"{number}.png").write_bytes(data)
    fill(tmp_path, "a/still.png")
    images = CroppedImages(FolderSource(tmp_path), 4)
    assert collate([images[i] for i in range(4)]).animated.tolist() == [True, True, True, False]


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.TIFF"])
def test_postscript_goes_to_no_interpreter(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder, a tar file and a folder to evaluate: an error of one line, and no program is started."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    for starter in ("Popen", "run", "call", "check_call", "check_output"):
        monkeypatch.setattr(subprocess, starter, never)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_bytes(POSTSCRIPT)
    tar = pack(tmp_path / "x.tar", {name: POSTSCRIPT, "x.cls": b"1"})
    for source in (FolderSource(tmp_path), TarSource(str(tar))):
        with pytest.raises(ImageError, match="not an image in a format that is read"):
            source.read(0)
    with pytest.raises(UserError, match="not a readable picture"):
        flat_picture(tmp_path / "a" / name)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "PCX", "TGA", "ICNS", "SGI", "DDS", "JPEG2000"])
def test_formats_that_are_not_listed_are_not_opened(kind: str) -> None:
    with pytest.raises(ImageError, match="not an image in a format that is read"):
        decode(io.BytesIO(saved(noise(64, 64), kind)), "x")


@pytest.mark.parametrize("ending", EXTENSIONS)
def test_every_ending_that_is_taken_is_read(ending: str, tmp_path: Path) -> None:
    noise(6, 5).save(tmp_path / f"x{ending}", **({"lossless": True} if ending == ".webp" else {}))
    picture = open_picture(tmp_path / f"x{ending}", "x").image
    assert picture.size == (6, 5) and picture.format in FORMATS
    if "jp" not in ending and ending != ".pgm":
        assert np.array_equal(np.asarray(to_rgb(picture)), np.asarray(noise(6, 5)))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put in a picture's place after it was listed; reading a pipe that nobody writes to would never end."""
    os.mkfifo(tmp_path / "pipe.png")
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
    for name in ("pipe.png", "socket.png", "/dev/zero", "."):
        with pytest.raises(ImageError, match=r"^x: "):
            open_picture(Path(name), "x")


def test_crops_of_deep_and_transparent_pictures() -> None:
    deep = Image.fromarray(np.tile(RAMP.astype(np.uint16) * 257, (6, 1)))
    assert (centre_crop(deep, 6)[:, :, 1] == RAMP).all()
    assert (centre_crop(Image.new("RGBA", (9, 9), (10, 20, 30, 0)), 3, (1, 2, 3)) == [1, 2, 3]).all()


def test_pictures_are_opened_nowhere_else() -> None:
    """But for those that a run has drawn itself, which trackers show."""
    source = Path(lwd.__file__).parent
    found = {str(p.relative_to(source)) for p in source.rglob("*.py") if re.search(r"Image\.open\(", p.read_text())}
    assert found == {"images/decode.py", "training/trackers.py"}


def test_the_page_lists_what_is_read() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    for word in (*(f"`{ending}`" for ending in EXTENSIONS), *FORMATS):
        assert word in page, word
