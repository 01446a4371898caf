"""Folders of images: order and labels as torchvision's ImageFolder has them, labels.csv, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from lwd.errors import UserError
from lwd.images.decode import ImageError
from lwd.images.folder import FolderSource
from lwd.images.open import open_source
from lwd.images.tar import TarSource
from pictures import encoded, fill, noise, pack, png


def listed(source: FolderSource) -> list[tuple[str, int]]:
    return [(source.name(i), source.label(i)) for i in range(len(source))]


def table(folder: Path, *rows: str) -> Path:
    (folder / "labels.csv").write_text("\n".join(("file,label", *rows)) + "\n")
    return folder


def test_order_and_labels_are_torchvisions(tmp_path: Path) -> None:
    """Written out by hand from the rules: classes by code point ("B" before "a", "10" before "2"); within a class the
    folders of a walk sorted by their whole paths (" " before "/"), the sorted files of one before those of the next."""
    order = [
        ("10/x.JPEG", 0),
        ("2/x.png", 1),
        ("B/10.png", 2),
        ("B/9.png", 2),
        ("B/sub/1.png", 2),
        ("B/sub b/1.png", 2),
        ("B/sub/a/0.webp", 2),
        ("B/sub/z/0.png", 2),
        ("a/A.PnG", 3),
        ("a/a.jpg", 3),
    ]
    fill(tmp_path, *reversed([name for name, _ in order]))
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "README.md").write_text("not an image either")
    source = FolderSource(tmp_path)
    assert listed(source) == order
    assert source.classes == ["10", "2", "B", "a"]
    assert source.labels.dtype == np.int64 and len(source) == len(order)


def test_reads_the_image_of_that_name(tmp_path: Path) -> None:
    fill(tmp_path, "b/x.png", "a/y.png")
    source = open_source(str(tmp_path))
    for position, seed in ((0, 1), (1, 0)):
        assert np.array_equal(np.asarray(source.read(position).image), np.asarray(noise(5, 4, seed)))


def test_links_and_odd_names(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "pläce 1.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "class").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "sub").symlink_to(fill(tmp_path / "further", "2.png"))
    odd = tmp_path / "root" / "class" / b"\xff.png".decode(errors="surrogateescape")
    odd.write_bytes(encoded(noise(2, 2)))
    source = FolderSource(tmp_path / "root")
    assert [name for name, _ in listed(source)] == ["class/pläce 1.png", f"class/{odd.name}", "class/sub/2.png"]
    assert source.read(1).image.size == (2, 2)
    assert len(source.fingerprint()) == 64


def test_an_index_outside_is_an_index_error(tmp_path: Path) -> None:
    source = FolderSource(fill(tmp_path, "a/x.png"))
    for index in (-1, 1):
        with pytest.raises(IndexError, match=f"image {index} of 1"):
            source.name(index)


def test_csv_with_numbers_keeps_its_order(tmp_path: Path) -> None:
    fill(tmp_path, "b.png", "a.png", "sub/c,1.png")
    source = open_source(str(table(tmp_path, "b.png,7", "", '"./sub/c,1.png",0', "a.png, 12")))
    assert listed(source) == [("b.png", 7), ("sub/c,1.png", 0), ("a.png", 12)]
    assert source.classes is None


def test_csv_with_class_names_sorts_them(tmp_path: Path) -> None:
    fill(tmp_path, "1.png", "2.png", "3.png")
    (tmp_path / "labels.csv").write_bytes("\ufefffile,label\r\n3.png,cat\r\n1.png,Öl\r\n2.png,Dog\r\n".encode())
    source = FolderSource(tmp_path)
    assert source.classes == ["Dog", "cat", "Öl"]
    assert listed(source) == [("3.png", 1), ("1.png", 2), ("2.png", 0)]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (["a.png,1", "b.png,2", "a.png,1"], "line 4: 'a.png' already stands in line 2"),
        (["a.png,1", "./a.png,1", "b.png,1"], "line 3: 'a.png' already stands in line 2"),
        (["a.png,1", "b.png,1", "c.png,1"], "line 4: no file 'c.png'"),
        (["a.png,1"], "no row for 'b.png'"),
        ([], "no row for 'a.png' and 1 more"),
        (["a.png,1", "b.png"], "line 3: a row is file,label; got 'b.png'"),
        (["a.png,1", "b.png,"], "line 3: a row is file,label; got 'b.png,'"),
        (["a.png,1,2", "b.png,1"], "line 2: a row is file,label"),
        (["a.png,1", "b.png,cat"], "line 3: label 'cat' is not a whole number"),
        (["a.png,cat", "b.png,1"], "line 3: label '1' is a number, but line 2 has a class name"),
        (["a.png,-1", "b.png,1"], "line 2: label '-1' is not a whole number"),
        (["a.png,1.0", "b.png,2.0"], "line 2: label '1.0' is not a whole number"),
        (["a.png,1e3", "b.png,2"], "line 2: label '1e3' is not a whole number"),
        (["a.png,1_0", "b.png,2"], "line 2: label '1_0' is not a whole number"),
        (["a.png,99999999999999999999", "b.png,2"], "line 2: label '99999999999999999999' is not a whole number"),
        (["a.png,2147483648", "b.png,2"], "line 2: label '2147483648' is not a whole number from 0 to 2147483647"),
        (["../a.png,1"], "line 2: '../a.png' must be a path inside"),
        (["/etc/a.png,1"], "line 2: '/etc/a.png' must be a path inside"),
        (['"a.png,1'], "not a CSV file in UTF-8"),
    ],
)
def test_csv_refuses(tmp_path: Path, rows: list[str], complaint: str) -> None:
    fill(tmp_path, "a.png", "b.png")
    with pytest.raises(UserError) as refused:
        open_source(str(table(tmp_path, *rows)))
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / 'labels.csv'}: ") and complaint in message and "\n" not in message


@pytest.mark.parametrize("text", [b"", b"a.png,1\n", b"label,file\n", b"\xff\xfe\n"])
def test_csv_of_another_form(tmp_path: Path, text: bytes) -> None:
    fill(tmp_path, "a.png")
    (tmp_path / "labels.csv").write_bytes(text)
    with pytest.raises(UserError, match=r"labels\.csv: (the header must read file,label|not a CSV file in UTF-8)"):
        FolderSource(tmp_path)


def test_csv_without_rows_or_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no rows"):
        FolderSource(table(tmp_path))


def test_folders_that_are_refused(tmp_path: Path) -> None:
    def message(path: str) -> str:
        with pytest.raises(UserError) as refused:
            open_source(path)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    assert "no such folder" in message(str(tmp_path / "none"))
    assert "an empty folder; images go in class subfolders or need labels.csv" in message(str(tmp_path))
    (tmp_path / "x.txt").write_text("")
    assert "no images; images go" in message(str(tmp_path))
    assert "neither a folder of images nor a .tar file" in message(str(tmp_path / "x.txt"))
    fill(tmp_path, "1.png", "2.jpg")
    assert "2 images without labels; images go" in message(str(tmp_path))
    fill(tmp_path, "a/1.png")
    assert f"{tmp_path / '1.png'}: lies beside the class subfolders" in message(str(tmp_path))
    (tmp_path / "1.png").unlink()
    (tmp_path / "2.jpg").unlink()
    (tmp_path / "b").mkdir()
    assert f"{tmp_path / 'b'}: class subfolder without images (.jpg" in message(str(tmp_path))
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "x.tar").write_bytes(b"")
    assert "holds tar files (for those, give the pattern FOLDER/*.tar)" in message(str(tmp_path / "tars"))


def test_unreadable_images_name_themselves(tmp_path: Path) -> None:
    fill(tmp_path, *(f"a/{i}.png" for i in range(5)))
    source = FolderSource(tmp_path)
    whole = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "a" / "0.png").unlink()
    (tmp_path / "a" / "1.png").write_bytes(b"")
    (tmp_path / "a" / "2.png").write_bytes(b"no image")
    (tmp_path / "a" / "3.png").write_bytes(whole[:-30])
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255  # PNG has checksums
    (tmp_path / "a" / "4.png").write_bytes(damaged)
    for index, reason in enumerate(("No such file", "not an image", "not an image", "", "")):
        with pytest.raises(ImageError, match=f"^a/{index}.png: .*{reason}.*$"):
            source.read(index)


def test_fingerprint_tells_names_sizes_and_labels(tmp_path: Path) -> None:
    def of(folder: str, *names: str) -> str:
        return FolderSource(fill(tmp_path / folder, *names)).fingerprint()

    base = of("0", "a/1.png", "b/2.png")
    assert of("1", "a/1.png", "b/2.png") == base  # wherever it lies
    assert of("2", "a/1.png", "b/3.png") != base
    assert of("3", "a/1.png", "a/2.png") != base
    (tmp_path / "1" / "b" / "2.png").write_bytes(b"another size")
    assert FolderSource(tmp_path / "1").fingerprint() != base
    (tmp_path / "4").mkdir()
    prints = {FolderSource(table(fill(tmp_path / "4", "1.png"), f"1.png,{label}")).fingerprint() for label in (1, 2)}
    assert len(prints) == 2


def test_pickled_for_spawned_workers(tmp_path: Path) -> None:
    source = FolderSource(fill(tmp_path, "a/1.png", "b/2.png"))
    twin = pickle.loads(pickle.dumps(source))
    assert listed(twin) == listed(source) and twin.fingerprint() == source.fingerprint()


def test_tar_files_go_to_their_own_source(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", {"1.png": png(0), "1.cls": b"3"})
    assert isinstance(open_source(str(tmp_path / "*.tar")), TarSource)


def test_held_out_classes_are_numbered_as_in_training(tmp_path: Path) -> None:
    """Lacking a class shifts no label; by subfolders, and by names in a table."""
    fill(tmp_path / "train", "cat/1.png", "dog/1.png", "fox/1.png")
    train = open_source(str(tmp_path / "train"))
    val = open_source(str(fill(tmp_path / "val", "dog/1.png", "fox/1.png", "fox/2.png")), train)
    assert val.labels.tolist() == [1, 2, 2] and val.classes == ["cat", "dog", "fox"]
    rows = table(fill(tmp_path / "table", "1.png", "2.png"), "1.png,fox", "2.png,cat")
    assert open_source(str(rows), train).labels.tolist() == [2, 0]
    numbers = table(fill(tmp_path / "numbers", "1.png"), "1.png,2")
    assert open_source(str(numbers), train).labels.tolist() == [2]


def test_held_out_classes_that_training_lacks(tmp_path: Path) -> None:
    def message(source: Path, train: Path) -> str:
        with pytest.raises(UserError) as refused:
            open_source(str(source), open_source(str(train)))
        assert str(refused.value).startswith(f"{source}: ") and "\n" not in str(refused.value)
        return str(refused.value)

    names = fill(tmp_path / "names", *(f"{name}/1.png" for name in "abcdef"))
    numbers = table(fill(tmp_path / "numbers", "1.png", "2.png"), "1.png,0", "2.png,7")
    other = fill(tmp_path / "other", "a/1.png", "g/1.png")
    assert "'g' is no class of the training images, which have 6 (a, b, c, d, e, ...); remove it" in message(
        other, names
    )
    assert "label 7 is no class of the training images, which have 6" in message(numbers, names)
    assert "has class names, the training images have numbers only" in message(names, numbers)
    fewer = table(fill(tmp_path / "fewer", "1.png"), "1.png,1")
    assert "label 1 is no class of the training images, which have 2" in message(fewer, numbers)
