"""The one walker: what is taken, what is left out and why, links, and what is no file."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lwd.data.format import shard_files
from lwd.data.samples import SampleSet
from lwd.errors import UserError
from lwd.evaluation.images import PictureImages
from lwd.files import write_json
from lwd.images.decode import is_image
from lwd.images.folder import FolderSource
from lwd.images.open import open_source
from lwd.images.walk import SEEN, files_in, summary, walk
from pictures import fill, pack

HIDDEN = "hidden, or left behind by a tool"
LITTER = (
    ".DS_Store",
    "._1.png",
    ".1.png",
    ".ipynb_checkpoints/1-checkpoint.png",
    "__MACOSX/1.png",
    "@eaDir/1.png",
    "Thumbs.db",
    "desktop.ini",
)


def litter(folder: Path) -> None:
    """What tools leave behind, pictures among it."""
    fill(folder, *LITTER)


def test_what_tools_leave_is_left_out_and_listed(tmp_path: Path) -> None:
    """Beside the classes and inside one; classes and labels are those of the folder without it."""
    fill(tmp_path, "cat/1.png", "dog/1.png", "dog/sub/2.png")
    clean = FolderSource(tmp_path)
    for place in (tmp_path, tmp_path / "cat", tmp_path / "dog" / "sub"):
        litter(place)
    source = FolderSource(tmp_path)
    assert source.classes == ["cat", "dog"] and source.labels.tolist() == [0, 1, 1]
    assert source.fingerprint() == clean.fingerprint()
    assert len(source.left_out) == 3 * len(LITTER) and {one.reason for one in source.left_out} == {HIDDEN}
    assert "cat/.ipynb_checkpoints/" in [one.name for one in source.left_out]


def test_files_of_other_kinds_are_listed_by_reason(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", *(f"a/{i}.gif" for i in range(16)), "a/notes.txt", "a/sub/README", "readme.md")
    left_out = FolderSource(tmp_path).left_out
    assert len(left_out) == 19 and ("a/3.gif", "named .gif") in left_out
    assert ("a/sub/README", "named without an ending") in left_out
    assert summary(left_out).startswith("named .gif: 16; ")
    with pytest.raises(UserError, match="b: class subfolder without images"):
        FolderSource(fill(tmp_path, "b/1.gif"))


def test_pipes_sockets_devices_and_broken_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a/1.png")
    os.mkfifo(tmp_path / "a" / "b.png")
    (tmp_path / "a" / "c.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a" / "d.png").symlink_to("/dev/zero")
    (tmp_path / "a" / "e.png").symlink_to(tmp_path / "a" / "e.png")
    (tmp_path / "a" / "g.png").symlink_to(tmp_path / "a" / "b.png")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("a/f.png")
    assert walk(tmp_path, is_image).left_out == [
        ("a/b.png", "a pipe"),
        ("a/c.png", "a broken link"),
        ("a/d.png", "a device"),
        ("a/e.png", "a broken link"),
        ("a/f.png", "a socket"),
        ("a/g.png", "a pipe"),
    ]
    assert len(FolderSource(tmp_path)) == len(files_in(tmp_path / "a", is_image)) == 1


def test_links_are_followed_once_and_real_folders_go_first(tmp_path: Path) -> None:
    """A link to a file is a file; to a folder elsewhere, that folder; to one that is read anyway, nothing."""
    fill(tmp_path / "store", "x/1.png", "y/2.png")
    root = tmp_path / "root"
    fill(root, "cat/1.png", "dog/2.png")
    (root / "ape").symlink_to(tmp_path / "store" / "x")
    (root / "cat" / "linked.png").symlink_to(root / "cat" / "1.png")
    (root / "cat" / "a").symlink_to(root / "dog")  # sorts before the real folder, which keeps its pictures
    (root / "cat" / "up").symlink_to(root)
    (root / "dog" / "again").symlink_to(tmp_path / "store" / "x")
    (tmp_path / "store" / "x" / "loop").symlink_to(tmp_path / "store")
    source = FolderSource(root)
    names = [source.name(i) for i in range(len(source))]
    assert names == ["ape/1.png", "ape/loop/y/2.png", "cat/1.png", "cat/linked.png", "dog/2.png"]
    assert source.left_out == [("ape/loop/x/", SEEN), ("cat/a/", SEEN), ("cat/up/", SEEN), ("dog/again/", SEEN)]


def test_a_class_that_is_another_ones_link_is_refused(tmp_path: Path) -> None:
    """Left out in silence it would shift every label after it."""
    fill(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "cow").symlink_to(tmp_path / "cat")
    with pytest.raises(UserError, match=r"cow/?: a class subfolder that is a link to a folder that is read already"):
        FolderSource(tmp_path)


def test_many_links_among_folders_are_no_explosion(tmp_path: Path) -> None:
    """Nine folders with links to all others have 9! ways through them."""
    fill(tmp_path, *(f"{i}/x.png" for i in range(9)))
    for i in range(9):
        for j in range(9):
            (tmp_path / str(i) / f"to-{j}").symlink_to(tmp_path / str(j))
    found = walk(tmp_path, is_image)
    assert len(found.files) == 9 and len(found.left_out) == 81


def test_evaluate_measures_what_encode_takes(tmp_path: Path) -> None:
    fill(tmp_path / "store", "b/1.png", "b/2.BMP")
    fill(tmp_path / "s", "a/1.png", "a/2.tif", "3.webp")
    (tmp_path / "s" / "b").symlink_to(tmp_path / "store" / "b")
    litter(tmp_path / "s" / "a")
    (tmp_path / "s" / "b" / "loop").symlink_to(tmp_path / "s")
    images = PictureImages(tmp_path / "s")
    assert len(images) == 5 and images.read(torch.arange(5)).shape == (5, 3, 4, 5)
    assert images.facts == {"skipped": f"9 files: {HIDDEN}: 8; {SEEN}: 1"}


def test_a_finished_sample_folder_that_tools_have_visited(tmp_path: Path) -> None:
    six = torch.arange(6)
    fill(tmp_path / "images", *(f"{i:06d}.png" for i in range(6)))
    save_file({"labels": six, "seeds": six.clone(), "nfe": six.clone()}, tmp_path / "samples.safetensors")
    write_json(tmp_path / "samples.json", {"format": "lwd.samples/1", "count": 6, "formats": ["png"]})
    before = next(SampleSet.read(tmp_path).images())
    litter(tmp_path / "images")
    (tmp_path / "images" / "notes.txt").write_text("")
    assert torch.equal(next(SampleSet.read(tmp_path).images()), before)


def test_shards_beside_a_macs_copies_and_a_pipe(tmp_path: Path) -> None:
    save_file({"labels": torch.zeros(1)}, tmp_path / "a.safetensors")
    (tmp_path / "._a.safetensors").write_bytes(b"\0\5\26\7")
    os.mkfifo(tmp_path / "b.safetensors")
    assert shard_files(tmp_path) == [tmp_path / "a.safetensors"]


def test_tar_files_that_are_none(tmp_path: Path) -> None:
    """A pipe that a pattern finds is not waited for; a Mac's copy of a tar file is not taken."""
    (tmp_path / "._a.tar").write_bytes(b"\0\5\26\7")
    pack(tmp_path / "a.tar", {"1.png": b"", "1.cls": b"3"})
    assert len(open_source(str(tmp_path / "*.tar"))) == 1
    os.mkfifo(tmp_path / "b.tar")
    with pytest.raises(UserError, match=r"b\.tar: no tar file, but a folder, a pipe or a broken link"):
        open_source(str(tmp_path / "*.tar"))


def test_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be listed"):
        walk(fill(tmp_path, "x.png") / "x.png", is_image)
