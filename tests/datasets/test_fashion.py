"""Fashion-MNIST: hand-packed IDX bytes, and the real files where they are installed."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import lwd.datasets.fashion as fashion
from lwd.cli.main import app
from lwd.datasets.builtin import load
from lwd.datasets.fashion import NAME, IdxFile, fashion_mnist, import_files, read_idx
from lwd.datasets.prepared import copy_path, write_prepared
from lwd.errors import UserError

SMALL = {"train": 6, "heldout": 4}
NAMES = {"train": "train", "heldout": "t10k"}


def idx(magic: int, shape: tuple[int, ...], elements: bytes) -> bytes:
    return struct.pack(">I", magic) + struct.pack(f">{len(shape)}I", *shape) + elements


def pixels(split: str) -> np.ndarray:
    """A few images whose every pixel says where it is."""
    count = SMALL[split]
    return (np.arange(count * 28 * 28) * (7 if split == "train" else 11) % 256).astype(np.uint8).reshape(count, 28, 28)


def labels(split: str) -> np.ndarray:
    return (np.arange(SMALL[split]) % 10).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the four files of a small set that the register expects; no other copy can be found."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fashion, "DEBIAN_FOLDER", tmp_path / "nowhere")
    folder = tmp_path / "idx"
    folder.mkdir()
    files = {}
    for split, count in SMALL.items():
        images = idx(0x803, (count, 28, 28), pixels(split).tobytes())
        classes = idx(0x801, (count,), labels(split).tobytes())
        names = f"{NAMES[split]}-images-idx3-ubyte", f"{NAMES[split]}-labels-idx1-ubyte"
        (folder / f"{names[0]}.gz").write_bytes(gzip.compress(images))
        (folder / names[1]).write_bytes(classes)
        files[split] = (
            IdxFile(names[0], (count, 28, 28), hashlib.sha256(images).hexdigest()),
            IdxFile(names[1], (count,), hashlib.sha256(classes).hexdigest()),
        )
    monkeypatch.setattr(fashion, "FILES", files)
    return folder


def check(split: str) -> None:
    """What `fashion_mnist` must give for the hand-packed set."""
    images, found = fashion_mnist(split)
    assert images.shape == (SMALL[split], 1, 32, 32) and images.dtype == torch.float32
    assert found.tolist() == labels(split).tolist() and found.dtype == torch.int64
    levels = (images + 1) * 127.5
    assert np.array_equal(levels[:, 0, 2:30, 2:30].round().numpy(), pixels(split))
    assert (levels - levels.round()).abs().max() < 1e-4  # float32's rounding of numbers up to 255
    border = images.clone()
    border[:, :, 2:30, 2:30] = -1
    assert (border == -1).all()


def test_nothing_here_names_the_package_and_the_command(folder: Path) -> None:
    with pytest.raises(UserError, match=r"apt install dataset-fashion-mnist, .* lwd data fashion-mnist --from FOLDER"):
        load("fashion-mnist", "train")


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_read_where_debian_installs_it(folder: Path, monkeypatch: pytest.MonkeyPatch, split: str) -> None:
    monkeypatch.setattr(fashion, "DEBIAN_FOLDER", folder)
    check(split)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_the_command_keeps_a_copy(folder: Path, split: str) -> None:
    result = CliRunner().invoke(app, ["data", "fashion-mnist", "--from", str(folder)])
    assert result.exit_code == 0 and str(copy_path(NAME)) in result.output.replace("\n", "")
    for file in folder.iterdir():
        file.unlink()
    check(split)


def test_the_command_refuses_in_one_line(folder: Path) -> None:
    result = CliRunner().invoke(app, ["data", "fashion-mnist", "--from", str(folder / "none")])
    assert result.exit_code == 2
    assert result.stderr == f"lwd: {folder / 'none'}: no train-images-idx3-ubyte or train-images-idx3-ubyte.gz\n"


def test_a_copy_of_another_kind_is_refused(folder: Path) -> None:
    import_files(folder)
    remedy = "run lwd data fashion-mnist again, or remove the file"
    splits = {split: (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.tensor([0, 1])) for split in SMALL}
    write_prepared(copy_path(NAME), splits)
    with pytest.raises(UserError, match=rf"images of \(3, 32, 32\) are not Fashion-MNIST's; {remedy}"):
        fashion_mnist("train")
    copy_path(NAME).write_bytes(b"none")
    with pytest.raises(UserError, match=f"not a readable safetensors file .*{remedy}"):
        fashion_mnist("train")


GOOD = idx(0x801, (4,), bytes([0, 1, 2, 3]))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "magic number ''"),
        (GOOD[:3], "magic number"),
        (GOOD[:6], "ends within its header, after 6 bytes"),
        (idx(0x803, (4, 1, 1), bytes(4)), "magic number '00000803', t10k-labels-idx1-ubyte starts with '00000801'"),
        (struct.pack("<I", 0x801) + GOOD[4:], "magic number '01080000'"),
        (idx(0x801, (5,), bytes(5)), "holds 5 bytes, t10k-labels-idx1-ubyte of Fashion-MNIST 4"),
        (GOOD[:-1], "3 bytes of data, its header says 4"),
        (GOOD + b"\0", "5 bytes of data, its header says 4"),
        (idx(0x801, (4,), bytes([0, 1, 2, 4])), "SHA-256 differs"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_is_not_it(folder: Path, data: bytes, complaint: str, packed: bool) -> None:
    path = folder / ("t10k-labels-idx1-ubyte" + ".gz" * packed)
    (folder / "t10k-labels-idx1-ubyte").unlink()
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(UserError) as refused:
        import_files(folder)
    assert str(refused.value).startswith(f"{path}: ") and complaint in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not copy_path(NAME).exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-9],
        lambda data: data[:20],
        lambda data: b"no" + data[2:],
        lambda data: data[:10] + b"\xff" * 9 + data[19:],
    ],
)
def test_a_damaged_gzip_file(folder: Path, damage: object) -> None:
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz: not a whole gzip file"):
        import_files(folder)


def test_read_idx_of_three_dimensions(tmp_path: Path) -> None:
    data = bytes.fromhex("00000803 00000002 00000001 00000003") + bytes([1, 2, 3, 4, 5, 255])
    (tmp_path / "a").write_bytes(data)
    file = IdxFile("a", (2, 1, 3), hashlib.sha256(data).hexdigest())
    assert read_idx(tmp_path, file).tolist() == [[[1, 2, 3]], [[4, 5, 255]]]


@pytest.mark.skipif(
    not (fashion.DEBIAN_FOLDER.is_dir() or copy_path(NAME).is_file()),
    reason="Fashion-MNIST is not installed: apt install dataset-fashion-mnist, or lwd data fashion-mnist --from FOLDER",
)
def test_the_real_images() -> None:
    """Counts and mean as published: 6 000 and 1 000 of each class, mean grey level of the training images 0.2860."""
    for split, each in (("train", 6000), ("heldout", 1000)):
        images, classes = load("fashion-mnist", split)
        assert images.shape == (10 * each, 1, 32, 32)
        assert torch.bincount(classes).tolist() == [each] * 10
        assert images.min() == -1 and images.max() == 1
        if split == "train":
            assert classes[:6].tolist() == [9, 0, 0, 3, 0, 2]  # ankle boot, two T-shirts, dress, T-shirt, pullover
            grey = (images[:, :, 2:30, 2:30].double().mean() + 1) / 2
            assert abs(float(grey) - 0.2860) < 5e-5  # four digits are published
