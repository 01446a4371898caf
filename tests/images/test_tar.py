"""Tar files by index: against what tarfile itself extracts, in forked readers, and everything that is refused."""

from __future__ import annotations

import gzip
import io
import json
import multiprocessing
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from lwd.errors import UserError
from lwd.images.decode import ImageError
from lwd.images.open import open_source
from lwd.images.tar import TarSource, expand
from pictures import noise, pack, png


def pixels(source: TarSource, index: int) -> np.ndarray:
    return np.asarray(source.read(index).image)


def drawn(seed: int) -> np.ndarray:
    return np.asarray(noise(5, 4, seed))


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_keys_labels_and_order(tmp_path: Path, kind: int) -> None:
    """Labels before and after their image, both kinds of label, a dot in a folder, names that exceed a header's 100
    bytes, other members: all as the WebDataset convention has it."""
    long = "d" * 80 + "/" + "é" * 30
    members = {
        "v1.0/b.png": png(0),
        "v1.0/b.cls": b"7\n",
        "a.json": json.dumps({"label": 3, "more": [1]}).encode(),
        "a.PNG": png(1),
        "a.txt": b"a caption",
        "c.cls": b"0",
        "c.json": b'{"label": 5}',
        "c.seg.png": b"a map of segments is no image of the set",
        "c.png": png(2),
        "e.json": b'{"label": 2147483647}',
        "e.cls": b" 12 ",
        "e.jpeg": png(3),
        f"{long}1.png": png(4),
        f"{long}1.cls": b"1",
        f"{long}2.png": png(5),
        f"{long}2.cls": b"2",
        "meta.json": b"{}",
        "._a.png": b"what macOS adds",
        "README": b"",
    }
    source = TarSource(str(pack(tmp_path / "x.tar", members, kind)))
    names = ["v1.0/b.png", "a.PNG", "c.png", "e.jpeg", f"{long}1.png", f"{long}2.png"]
    # a key stands where its first member stands
    assert [source.name(i) for i in range(len(source))] == [f"x.tar:{name}" for name in names]
    assert source.labels.tolist() == [7, 3, 0, 12, 1, 2] and source.classes is None
    assert source.sizes().tolist() == [len(members[name]) for name in names]
    for i in (5, 0, 3, 1, 4, 2):
        assert np.array_equal(pixels(source, i), drawn(i))


def test_several_files_are_one_source(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number % 2}").mkdir(exist_ok=True)
        pack(tmp_path / f"{number % 2}" / f"t-{number:02d}.tar", {"k.png": png(number), "k.cls": b"%d" % number})
    source = open_source(str(tmp_path / "*" / "t-*.tar"))
    assert [source.name(i) for i in range(3)] == ["0/t-00.tar:k.png", "0/t-02.tar:k.png", "1/t-01.tar:k.png"]
    assert source.labels.tolist() == [0, 2, 1]
    assert np.array_equal(np.asarray(source.read(2).image), drawn(1))


def test_ranges_and_globs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "a-008.tar",
        "a-009.tar",
        "a-010.tar",
        "b-1-9.tar",
        "b-1-10.tar",
        "b-2-9.tar",
        "b-2-10.tar",
        "[x].tar",
    ):
        Path(name).touch()
    assert [str(path) for path in expand("a-{008..010}.tar")] == ["a-008.tar", "a-009.tar", "a-010.tar"]
    assert [str(path) for path in expand("b-{1..2}-{9..10}.tar")] == [
        "b-1-9.tar",
        "b-1-10.tar",
        "b-2-9.tar",
        "b-2-10.tar",
    ]
    assert [str(path) for path in expand("a*.tar")] == ["a-008.tar", "a-009.tar", "a-010.tar"]
    assert [str(path) for path in expand("[x].tar")] == ["[x].tar"]  # a file's own name before a pattern
    for pattern, missing in (("a-{008..011}.tar", "a-011.tar"), ("c*.tar", r"c\*.tar"), ("d.tar", "d.tar")):
        with pytest.raises(UserError, match=f"^{missing}: no such tar file$"):
            expand(pattern)
    with pytest.raises(UserError, match="counts down"):
        expand("a-{9..8}.tar")


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ({"a.png": b"x", "b.png": b"x", "b.cls": b"1"}, "'a.png' has no label; add a.cls"),
        ({"a.png": b"x", "a.json": b'{"caption": ""}'}, "'a.png' has no label; add a.cls"),
        ({"d/a.cls": b"1"}, "'d/a' has a label but no image"),
        ({"a.json": b'{"label": 1}'}, "'a' has a label but no image"),
        ({"a.png": b"x", "a.jpg": b"x", "a.cls": b"1"}, "'a.jpg': a second image of 'a'"),
        ({"a.1.png": b"x", "a.1.cls": b"1"}, "'a.1.png': the key is 'a', up to the first dot, and has no image"),
        ({"a.png": b"x", "a.cls": b"cat"}, "'a.cls': label 'cat' is not a whole number"),
        ({"a.png": b"x", "a.cls": b""}, "'a.cls': label '' is not"),
        ({"a.png": b"x", "a.cls": b"\xff"}, "'a.cls': label"),
        ({"a.png": b"x", "a.json": b'{"label": "1"}'}, "'a.json': label '\"1\"' is not"),
        ({"a.png": b"x", "a.json": b'{"label": true}'}, "'a.json': label 'true' is not"),
        ({"a.png": b"x", "a.json": b'{"label": 1.5}'}, "'a.json': label '1.5' is not"),
        ({"a.png": b"x", "a.json": b"{"}, "'a.json': not valid JSON"),
        ({"a.png": b"x", "a.json": b"\xff\xfe"}, "'a.json': not valid JSON"),
        ({}, "no images in 1 tar file"),
        ({"a.txt": b""}, "no images in 1 tar file"),
    ],
)
def test_refuses(tmp_path: Path, members: dict[str, bytes], complaint: str) -> None:
    path = pack(tmp_path / "x.tar", members)
    with pytest.raises(UserError) as refused:
        TarSource(str(path))
    message = str(refused.value)
    assert message.startswith(f"{path}: ") and complaint in message and "\n" not in message


def test_refuses_a_member_twice_and_links(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.tar", {"a.png": png(0), "a.cls": b"1"})
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo("a.cls"), io.BytesIO())
    with pytest.raises(UserError, match=r"'a.cls': a second cls of 'a'"):
        TarSource(str(path))
    for kind in (tarfile.LNKTYPE, tarfile.SYMTYPE):
        path = pack(tmp_path / "x.tar", {"a.png": png(0), "a.cls": b"1"})
        with tarfile.open(path, "a") as tar:
            link = tarfile.TarInfo("b.png")
            link.type, link.linkname = kind, "a.png"
            tar.addfile(link)
        with pytest.raises(UserError, match=r"'b.png' is a link .* --hard-dereference"):
            TarSource(str(path))


def test_refuses_what_is_cut_short_or_damaged(tmp_path: Path) -> None:
    """Everywhere that a file can end, and where tarfile would stop without a word."""
    members = {f"{i}.{kind}": data for i in range(3) for kind, data in (("png", png(i)), ("cls", b"1"))}
    whole = pack(tmp_path / "whole.tar", members).read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as tar:
        last = tar.getmembers()[-1]
        third = tar.getmembers()[2]
    end = last.offset_data + 512
    path = tmp_path / "x.tar"

    def refuse(data: bytes) -> str:
        path.write_bytes(data)
        with pytest.raises(UserError) as refused:
            TarSource(str(path))
        return str(refused.value)

    for length in (
        0,
        100,
        512,
        700,
        third.offset,
        third.offset + 9,
        third.offset_data,
        third.offset_data + 9,
        end - 512,
        end,
    ):
        assert str(path) in refuse(whole[:length])
    path.write_bytes(whole[: end + 512])
    assert len(TarSource(str(path))) == 3
    assert "a damaged header, or a second archive" in refuse(whole + whole)
    assert "a damaged header" in refuse(whole[: third.offset + 20] + b"X" + whole[third.offset + 21 :])
    assert "not a whole, uncompressed tar file" in refuse(gzip.compress(whole))


def test_unreadable_images_name_themselves(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.tar", {"a.png": png(0)[:-40], "a.cls": b"1", "b.png": png(1), "b.cls": b"2"})
    source = TarSource(str(path))
    with pytest.raises(ImageError, match=r"^x\.tar:a\.png: "):
        source.read(0)
    assert np.array_equal(pixels(source, 1), drawn(1))
    path.write_bytes(path.read_bytes()[:1100])
    with pytest.raises(ImageError, match=r"x\.tar:b\.png: 0 of \d+ bytes; the tar file is shorter"):
        source.read(1)
    path.unlink()
    with pytest.raises(ImageError, match=r"x\.tar:b\.png: No such file"):
        source.read(1)


def _read_often(source: TarSource, start: int) -> bool:
    order = [(start + 7 * i) % len(source) for i in range(300)]
    return all(np.array_equal(pixels(source, i), drawn(i)) for i in order)


@pytest.mark.parametrize("method", ["fork", "pickle"])
def test_processes_share_no_file_offset(tmp_path: Path, method: str) -> None:
    """Two children read one file at different places at once; a shared offset would hand them each other's bytes."""
    members = {f"{i}.{kind}": data for i in range(20) for kind, data in (("png", png(i)), ("cls", b"1"))}
    source = TarSource(str(pack(tmp_path / "x.tar", members)))
    source.read(0)  # whatever a reader would keep open is open before the fork
    if method == "pickle":
        assert _read_often(pickle.loads(pickle.dumps(source)), 3)
        return
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.starmap(_read_often, [(source, 0), (source, 5)]) == [True, True]


def test_fingerprint(tmp_path: Path) -> None:
    def of(members: dict[str, bytes]) -> str:
        return TarSource(str(pack(tmp_path / "x.tar", members))).fingerprint()

    base = of({"a.png": b"12", "a.cls": b"1"})
    assert of({"a.cls": b"1", "a.png": b"12"}) == base
    others = [{"b.png": b"12", "b.cls": b"1"}, {"a.png": b"123", "a.cls": b"1"}, {"a.png": b"12", "a.cls": b"2"}]
    assert len({base, *map(of, others)}) == 4


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A member's header alone, which claims ``size`` bytes to come."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("size", [2**62, 2**40, 5000, -512, -(2**40)])
@pytest.mark.parametrize("name", ["a.png", "a.cls", "a.json", "a.txt"])
def test_sizes_that_cannot_be(tmp_path: Path, name: str, size: int) -> None:
    """No such amount of memory is asked for, and one below zero, which leads back to its own header, is no loop."""
    path = tmp_path / "x.tar"
    path.write_bytes(header(name, size) + bytes(2048))
    with pytest.raises(UserError, match="not a whole, uncompressed tar file"):
        TarSource(str(path))


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("size", [2**62, 2**30, -512])
def test_headers_of_headers_that_cannot_be(tmp_path: Path, kind: bytes, size: int) -> None:
    """Tarfile reads long names and pax records whole, whatever their size."""
    path = tmp_path / "x.tar"
    path.write_bytes(header("name", size, kind) + bytes(2048))
    with pytest.raises(UserError, match="not a whole, uncompressed tar file"):
        TarSource(str(path))


def test_headers_without_end_and_a_label_of_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    record = b"13 comment=a\n"
    path.write_bytes(3000 * (header("p", len(record), tarfile.XHDTYPE) + record.ljust(512, b"\0")) + bytes(1024))
    with pytest.raises(UserError, match="not a whole, uncompressed tar file"):
        TarSource(str(path))
    pack(path, {"a.png": png(0), "a.json": b'{"label": 1, "text": "' + bytes([97]) * 2**20 + b'"}'})
    with pytest.raises(UserError, match=r"'a\.json': a label of \d+ bytes, more than the 1048576 that are read"):
        TarSource(str(path))


def test_members_of_no_image_are_listed(tmp_path: Path) -> None:
    """A caption belongs to its image; a GIF, a Mac's copy and a lone caption do not."""
    members = {
        "a.txt": b"",
        "a.png": png(0),
        "a.cls": b"1",
        "b.gif": b"",
        "d/._a.png": b"",
        "README": b"",
        "c.json": b"{}",
    }
    source = TarSource(str(pack(tmp_path / "x.tar", members)))
    assert len(source) == 1
    assert [one.name for one in source.left_out] == ["x.tar:b.gif", "x.tar:d/._a.png", "x.tar:README", "x.tar:c.json"]
