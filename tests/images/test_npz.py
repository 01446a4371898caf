"""Images as ADM's evaluator reads them."""

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lwd.errors import UserError
from lwd.images.npz import read_npz, write_npz


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 6, 5, 3), dtype=np.uint8)


def test_numpy_reads_what_is_written_and_the_other_way_round(tmp_path):
    pixels, labels = images(7), np.arange(7)
    write_npz(tmp_path / "ours.npz", iter([pixels[:3], pixels[3:]]), labels, (6, 5))
    with np.load(tmp_path / "ours.npz") as theirs:
        assert sorted(theirs) == ["arr_0", "arr_1"]
        assert theirs["arr_0"].dtype == np.uint8 and np.array_equal(theirs["arr_0"], pixels)
        assert np.array_equal(theirs["arr_1"], labels)
    for save in (np.savez, np.savez_compressed):
        save(
            tmp_path / "theirs.npz",
            pixels,
            labels,
            mu=np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            one=np.float64(2),
        )
        read = read_npz(tmp_path / "theirs.npz")
        assert sorted(read) == ["arr_0", "arr_1", "mu", "one"]
        assert np.array_equal(read["arr_0"], pixels) and np.array_equal(read["arr_0"][[5, 2]], pixels[[5, 2]])
        assert np.array_equal(read["mu"], np.arange(6.0).reshape(2, 3)) and read["one"] == 2


def test_equal_content_gives_equal_bytes_however_it_is_cut(tmp_path):
    pixels, labels = images(9), np.arange(9)
    write_npz(tmp_path / "a.npz", [pixels], labels, (6, 5))
    write_npz(tmp_path / "b.npz", [pixels[:2], pixels[2:]], labels, (6, 5))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_memory_does_not_grow_with_the_count(tmp_path):
    """30 MB of images are written and read, 100 kB at a time."""
    block, count = np.zeros((100, 32, 32, 3), np.uint8), 100
    tracemalloc.start()
    write_npz(tmp_path / "a.npz", (block for _ in range(count)), np.zeros(100 * count, np.int64), (32, 32))
    array = read_npz(tmp_path / "a.npz")["arr_0"]
    assert sum(int(array[i : i + 100].sum()) for i in range(0, len(array), 100)) == 0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6


@pytest.mark.parametrize("block", [np.zeros((2, 6, 5, 3), np.float32), np.zeros((2, 6, 6, 3), np.uint8)])
def test_other_images_are_not_written(tmp_path, block):
    with pytest.raises(ValueError, match=r"expected uint8 images of shape \(6, 5, 3\)"):
        write_npz(tmp_path / "a.npz", [block], np.arange(2), (6, 5))
    with pytest.raises(ValueError, match="1 images for 2 labels"):
        write_npz(tmp_path / "a.npz", [images(1)], np.arange(2), (6, 5))
    assert not list(tmp_path.iterdir())


def damaged(kind, tmp_path):
    path = tmp_path / "a.npz"
    if kind == "pickle":
        np.savez(path, np.array([{}], dtype=object), allow_pickle=True)
        return path
    np.savez(path, images(20))
    content = path.read_bytes()
    path.write_bytes({"cut": content[:700], "text": b"x" * 100, "empty": b""}[kind])
    return path


@pytest.mark.parametrize("kind", ["pickle", "cut", "text", "empty"])
def test_a_damaged_file_gives_one_line(tmp_path, kind):
    with pytest.raises(UserError, match=r"a\.npz: not a readable npz") as error:
        read_npz(damaged(kind, tmp_path))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no such file"):
        read_npz(tmp_path / "b.npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("shape", [(2**50, 8, 8, 3), (2**62, 2**62), (3, 8, 8, 3)])
def test_a_header_that_claims_more_than_there_is(tmp_path: Path, method: int, shape: tuple[int, ...]) -> None:
    """Said before memory is asked for; products beyond 64 bits do not wrap to something that fits."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(tmp_path / "x.npz", "w", method) as archive:
        archive.writestr("arr_0.npy", content.getvalue() + bytes(2 * 8 * 8 * 3))
    with pytest.raises(UserError, match=r"x\.npz: not a readable npz \(arr_0\.npy is cut short\)"):
        read_npz(tmp_path / "x.npz")
