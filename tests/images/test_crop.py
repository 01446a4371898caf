"""ADM's centre crop: against a transcription of its steps, and cases worked by hand; and images as loader records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from torch.utils.data import DataLoader

from lwd.images.crop import CropBatch, CroppedImages, centre_crop, collate
from lwd.images.decode import ImageError
from lwd.images.folder import FolderSource
from pictures import encoded, fill, noise


def adm(image: Image.Image, size: int) -> np.ndarray:
    """The steps of guided-diffusion's image_datasets.py, from reading it, written another way: sizes first, then
    pixels."""
    image = image.convert("RGB")
    w, h = image.size
    while w >= 2 * size and h >= 2 * size:
        w, h = w // 2, h // 2
        image = image.resize((w, h), resample=Image.BOX)
    ratio = size / (w if w < h else h)
    image = image.resize((round(w * ratio), round(h * ratio)), resample=Image.BICUBIC)
    x, y = (image.size[0] - size) // 2, (image.size[1] - size) // 2
    return np.asarray(image.crop((x, y, x + size, y + size)))


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_is_adms(width: int, height: int, size: int) -> None:
    image = noise(width, height, seed=width + 91 * height)
    found = centre_crop(image, size)
    assert found.shape == (size, size, 3) and found.dtype == np.uint8
    assert np.array_equal(found, adm(image, size))


@pytest.mark.parametrize("shape", [(500, 375), (375, 500), (256, 256), (257, 300), (511, 512), (512, 1025), (64, 48)])
def test_is_adms_at_imagenets_sizes(shape: tuple[int, int]) -> None:
    assert np.array_equal(centre_crop(noise(*shape), 256), adm(noise(*shape), 256))


def columns(image: np.ndarray) -> list[int]:
    """The red values of the first row."""
    return [int(value) for value in image[0, :, 0]]


def ramp(width: int, height: int, across: bool = True) -> Image.Image:
    """Grey that rises by 10 a column, or a row."""
    row = np.arange(width if across else height, dtype=np.uint8) * 10
    plane = np.broadcast_to(row if across else row[:, None], (height, width))
    return Image.fromarray(np.repeat(plane[..., None], 3, 2))


def test_exact_size_is_untouched() -> None:
    assert np.array_equal(centre_crop(noise(7, 7), 7), np.asarray(noise(7, 7)))


@pytest.mark.parametrize(
    ("length", "kept"),
    [
        (4, [0, 10, 20]),  # one column too many: the last goes, as (4 - 3) // 2 = 0
        (5, [10, 20, 30]),
        (6, [10, 20, 30]),
        (7, [20, 30, 40]),
    ],
)
def test_cut_from_the_middle(length: int, kept: list[int]) -> None:
    """Short side 3 already: no resampling, only the cut."""
    assert columns(centre_crop(ramp(length, 3), 3)) == kept
    assert [int(v) for v in centre_crop(ramp(3, length, across=False), 3)[:, 0, 0]] == kept


def test_halved_by_boxes() -> None:
    """8 x 4 to 2: one halving to 4 x 2, pairs of columns averaged (5, 25, 45, 65), then the middle two."""
    assert columns(centre_crop(ramp(8, 4), 2)) == [25, 45]


def test_halving_an_odd_side() -> None:
    """5 x 4 to 2: 5 // 2 = 2 columns of 2.5. Pillow's box takes whole pixels, the one on the border to the left:
    (0 + 10 + 20) / 3 and (30 + 40) / 2."""
    assert columns(centre_crop(ramp(5, 4), 2)) == [10, 35]


def test_just_below_twice_the_size_is_not_halved() -> None:
    """7 x 7 to 4 is bicubic alone; 8 x 8 is halved alone."""
    seven, eight = noise(7, 7), noise(8, 8)
    assert np.array_equal(centre_crop(seven, 4), np.asarray(seven.resize((4, 4), Image.BICUBIC)))
    means = np.asarray(eight, dtype=float).reshape(4, 2, 4, 2, 3).mean((1, 3))
    assert np.abs(centre_crop(eight, 4) - means).max() <= 1  # rounded to a byte after each direction


def test_enlarged() -> None:
    """One pixel becomes size x size of it; 2 x 1 becomes 6 x 3, of which the middle three columns stay."""
    assert (centre_crop(Image.new("RGB", (1, 1), (9, 8, 7)), 5) == [9, 8, 7]).all()
    assert np.array_equal(centre_crop(ramp(2, 1), 3), np.asarray(ramp(2, 1).resize((6, 3), Image.BICUBIC))[:, 1:4])


def test_rounding_is_to_even() -> None:
    """8 x 12 to 5 is 7.5 -> 8 long; 8 x 20 to 5 is 12.5 -> 12 long."""
    for side, length in ((12, 8), (20, 12)):
        image = noise(8, side)
        middle = (length - 5) // 2
        assert np.array_equal(
            centre_crop(image, 5), np.asarray(image.resize((5, length), Image.BICUBIC))[middle : middle + 5]
        )


def test_every_mode_becomes_rgb() -> None:
    """Alpha is composed; grey is repeated; a palette is looked up; 16 bits are scaled; CMYK as Pillow has it."""
    assert (centre_crop(Image.new("RGBA", (3, 3), (10, 20, 30, 255)), 3) == [10, 20, 30]).all()
    assert (centre_crop(Image.new("RGBA", (3, 3), (10, 20, 30, 0)), 3) == 255).all()
    assert (centre_crop(Image.new("LA", (3, 3), (40, 0)), 3) == 255).all()
    assert (centre_crop(Image.new("La", (3, 3)), 3, (4, 5, 6)) == [4, 5, 6]).all()
    assert (centre_crop(Image.new("L", (3, 3), 50), 3) == 50).all()
    assert (centre_crop(Image.new("1", (3, 3), 1), 3) == 255).all()
    palette = Image.new("P", (3, 3), 1)
    palette.putpalette([0, 0, 0, 60, 70, 80])
    assert (centre_crop(palette, 3) == [60, 70, 80]).all()
    assert (centre_crop(Image.new("CMYK", (3, 3), (255, 0, 0, 0)), 3) == [0, 255, 255]).all()
    assert (centre_crop(Image.new("I;16", (3, 3), 60_000), 3) == 233).all()  # 60000 / 257 = 233.5 less 0.04
    with pytest.raises(ImageError, match="mode F: numbers whose depth"):
        centre_crop(Image.new("F", (3, 3)), 3)


def test_exif_rotation_is_not_applied(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    image, exif = ramp(4, 3), Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees to show"
    image.save(tmp_path / "a" / "x.png", exif=exif)
    assert columns(centre_crop(FolderSource(tmp_path).read(0).image, 3)) == [0, 10, 20]


def test_a_needle_is_refused_not_allocated() -> None:
    with pytest.raises(ImageError, match="30000 x 1 pixels would become 7680000 x 256"):
        centre_crop(Image.new("RGB", (30_000, 1)), 256)


@pytest.fixture
def mixed(tmp_path: Path) -> FolderSource:
    """Good images at 0 and 5; between them one empty, one that is no image, one cut short, one that is gone."""
    fill(tmp_path, *(f"{i % 2}/{i}.png" for i in range(6)))
    source = FolderSource(tmp_path)  # its order: 0 2 4 | 1 3 5
    jpeg = encoded(noise(60, 40), "JPEG")
    (tmp_path / "0" / "2.png").write_bytes(b"")
    (tmp_path / "0" / "4.png").write_bytes(b"<html>404</html>")
    (tmp_path / "1" / "1.png").write_bytes(jpeg[: len(jpeg) // 2])
    (tmp_path / "1" / "3.png").unlink()
    return source


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_records(mixed: FolderSource, workers: int) -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    dataset = CroppedImages(mixed, 4)
    loader = DataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=collate)
    batches: list[CropBatch] = list(loader)
    assert [len(batch.images) for batch in batches] == [4, 2]
    errors = [error for batch in batches for error in batch.errors]
    assert errors[0] is None and errors[5] is None
    reasons = ("0/2.png: not an image", "0/4.png: not an image", "1/1.png: image file is truncated", "1/3.png: No such")
    for error, start in zip(errors[1:5], reasons, strict=True):
        assert error is not None and error.startswith(start) and "\n" not in error
    images = torch.cat([batch.images for batch in batches])
    assert images.shape == (6, 3, 4, 4) and images.dtype == torch.uint8
    assert not images[1:5].any()
    for row, seed in ((0, 0), (5, 5)):
        assert np.array_equal(images[row].permute(1, 2, 0).numpy(), adm(noise(5, 4, seed), 4))
    assert torch.cat([batch.labels for batch in batches]).tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.cat([batch.positions for batch in batches]).tolist() == [0, 1, 2, 3, 4, 5]


def test_every_cut_of_a_jpeg_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path, "a/x.jpg")
    dataset = CroppedImages(FolderSource(tmp_path), 16)
    whole = encoded(noise(40, 30), "JPEG")
    for length in [*range(0, len(whole), 97), len(whole) - 2, len(whole) - 1]:
        (tmp_path / "a" / "x.jpg").write_bytes(whole[:length])
        assert dataset[0].error is not None, length
    (tmp_path / "a" / "x.jpg").write_bytes(whole)
    assert dataset[0].error is None


def test_a_bomb_and_a_needle_are_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    Image.new("1", (3000, 2)).save(tmp_path / "a" / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2900)  # Pillow refuses twice as many
    dataset = CroppedImages(FolderSource(tmp_path), 4)
    assert str(dataset[0].error).startswith("a/bomb.png: Image size (6000 pixels) exceeds limit")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    monkeypatch.setattr("lwd.images.crop.RESIZED_PIXELS", 20_000)
    assert dataset[0].error == "a/bomb.png: 3000 x 2 pixels would become 6000 x 4"


def test_running_out_of_memory_is_not_the_images_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = CroppedImages(FolderSource(fill(tmp_path, "a/x.png")), 4)

    def exhausted(self: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", exhausted)
    with pytest.raises(MemoryError):
        dataset[0]
