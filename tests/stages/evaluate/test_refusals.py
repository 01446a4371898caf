"""What cannot be evaluated is refused in one line."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluate_command import SAMPLES, Evaluate, pictures
from PIL import Image
from safetensors.torch import save_file

from lwd.errors import UserError
from lwd.images.decode import flat_picture
from stub_extractor import StubExtractor


def test_bad_input(evaluate: Evaluate, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = files / "reference.npz"

    def array(name: str, **arrays: Any) -> Path:
        np.savez(files / name, **arrays)
        return files / name

    def refused(samples: Path, *arguments: object) -> str:
        return evaluate.refuses(samples, "--reference", good, *arguments)

    assert "arr_0 is float32; images must be uint8" in refused(array("f.npz", arr_0=SAMPLES.astype(np.float32)))
    assert "images must be (N, height, width, 3)" in refused(array("c.npz", arr_0=SAMPLES.transpose(0, 3, 1, 2)))
    assert "no pixel is above 1" in refused(array("r.npz", arr_0=SAMPLES // 128))
    count = StubExtractor.seen
    assert "holds 1 image; a distribution needs at least 2" in refused(array("o.npz", arr_0=SAMPLES[:1]))
    assert "neither images (arr_0) nor statistics (mu, sigma); it holds ['x']" in refused(array("x.npz", x=SAMPLES))
    assert "few.npz: k must be below the number of images, 3; got 3" in refused(array("few.npz", arr_0=SAMPLES[:3]))
    setting = "evaluate.metrics=[fid,coverage]"
    assert "number of images, 5; got 5" in refused(array("few.npz", arr_0=SAMPLES[:5]), setting)
    assert "at least 2 replicates" in refused(files / "samples.npz", "evaluate.bootstrap=1")
    assert StubExtractor.seen == count
    statistics = array("wide.npz", mu=np.zeros(768), sigma=np.eye(768))
    err = evaluate.refuses(files / "samples.npz", "--reference", statistics)
    assert "mu is of (768,)" in err and "other features than Inception's 6" in err
    (files / "cut.npz").write_bytes(good.read_bytes()[:-300])
    assert "cut.npz: not a readable npz" in refused(files / "cut.npz")
    assert "no such file or folder" in refused(files / "nowhere")
    assert "holds no pictures" in refused((files / "empty").mkdir() or files / "empty")
    mixed = pictures(files / "mixed", SAMPLES[:20])
    Image.fromarray(SAMPLES[0, :3]).save(mixed / "z.png")
    assert "z.png: pictures of different sizes, 4x3 and 4x4" in refused(mixed)
    (mixed / "z.png").write_bytes(b"no picture")
    assert "z.png: not a readable picture" in refused(mixed)
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(mixed / "z.png")
    assert "8 bits a channel" in refused(mixed)
    saved = files / "saved.safetensors"
    evaluate(good, "--save-features", saved)
    monkeypatch.setattr(StubExtractor, "published", False)
    err = evaluate.refuses(files / "samples.npz", "-r", saved, "evaluate.allow_other_weights=true")
    assert "features of another network: published_weights is True, needed False" in err
    monkeypatch.setattr(StubExtractor, "published", True)
    saved.write_bytes(saved.read_bytes()[:-9])
    assert "saved.safetensors: damaged" in evaluate.refuses(files / "samples.npz", "-r", saved)
    save_file({"a": torch.zeros(1)}, saved)
    assert "not features saved by `lwd evaluate`" in evaluate.refuses(files / "samples.npz", "-r", saved)
    assert "no reference: name one with --reference" in evaluate.refuses(files / "samples.npz")
    assert "one set of samples at a time" in evaluate.refuses(files / "samples.npz", good, "-r", good)
    assert "did you mean 'metrics'" in refused(files / "samples.npz", "evaluate.metric=[fid]")
    assert "not density" in refused(
        files / "samples.npz", "evaluate.metrics=[density]", "evaluate.distances=adm-float16"
    )
    assert not list(files.glob("*evaluation.json"))


def test_missing_weights_name_address_and_setting(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(files))
    plain = Evaluate(monkeypatch, capsys)
    err = plain.refuses(files / "samples.npz", "-r", files / "reference.npz")
    assert "https://github.com/mseitzer/pytorch-fid" in err and "evaluate.weights" in err
    assert "evaluate.dinov2=FOLDER" in plain.refuses(
        files / "samples.npz", "-r", files / "reference.npz", "evaluate.metrics=[fd_dinov2]"
    )


@pytest.mark.parametrize(
    ("sigma", "why"),
    [
        (-np.eye(6), "has negative eigenvalues"),
        (np.diag([1, 1, 1, 1, 1, -1e-3]), "has negative eigenvalues"),
        (np.eye(6) + np.eye(6, k=1) / 2, "is not symmetric"),
        (np.eye(6)[:5], "is not symmetric"),
    ],
)
def test_stored_covariances_are_covariances(
    evaluate: Evaluate, files: Path, sigma: np.ndarray[Any, Any], why: str
) -> None:
    np.savez(files / "adm.npz", mu=np.zeros(6), sigma=sigma)
    assert f"adm.npz: sigma {why}" in evaluate.refuses(files / "samples.npz", "-r", files / "adm.npz")
    assert StubExtractor.seen == 0


def test_singular_covariances_in_float32_are_covariances(evaluate: Evaluate, files: Path) -> None:
    few = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    np.savez(files / "adm.npz", mu=few.mean(0), sigma=np.cov(few, rowvar=False).astype(np.float32))
    evaluate.record(files, files / "samples.npz", files / "adm.npz")
    np.savez(files / "adm.npz", mu=few.mean(0), sigma=np.zeros((6, 6)))
    evaluate.record(files, files / "samples.npz", files / "adm.npz")


def test_one_changed_bit_is_noticed(evaluate: Evaluate, files: Path) -> None:
    """Of images, and of statistics alone; under the cache, too."""
    np.savez(files / "adm.npz", mu=np.zeros(6), sigma=np.eye(6))
    good = files / "samples.npz"
    np.savez(files / "large.npz", np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), dtype=np.uint8))
    for name, position in (("reference.npz", 1000), ("large.npz", 30000), ("adm.npz", 500)):
        data = bytearray((files / name).read_bytes())
        data[position] ^= 1
        (files / "flipped.npz").write_bytes(data)
        for cache in ((), ("--cache", files / "cache")):
            err = evaluate.refuses(good, "-r", files / "flipped.npz", "evaluate.metrics=[fid]", *cache)
            assert "flipped.npz: not a readable npz (Bad CRC-32 for file" in err


def _png(path: Path, depth: int, colour: int, rows: bytes) -> None:
    """Four by four pixels, by the PNG specification: signature, IHDR, IDAT, IEND."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 4, 4, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_pictures_of_16_bits_are_refused(tmp_path: Path, colour: int, channels: int) -> None:
    """Grey and RGB, without and with alpha; the same in 8 bits are read."""
    for depth, width in ((8, 1), (16, 2)):
        row = b"\0" + b"\xff" * (4 * channels * width)
        _png(tmp_path / f"{depth}.png", depth, colour, 4 * row)
    assert (flat_picture(tmp_path / "8.png") == 255).all()
    with pytest.raises(UserError, match="more than 8 bits a channel"):
        flat_picture(tmp_path / "16.png")


def test_a_picture_that_would_fill_the_memory_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(SAMPLES[0]).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    with pytest.raises(UserError, match=r"a.png: not a readable picture \(Image size"):
        flat_picture(tmp_path / "a.png")


def test_an_encrypted_npz_is_one_line(evaluate: Evaluate, files: Path) -> None:
    data = bytearray((files / "reference.npz").read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the flags of the member, and of its directory entry
        data[data.index(signature) + offset] |= 1
    (files / "locked.npz").write_bytes(data)
    assert "locked.npz: not a readable npz" in evaluate.refuses(files / "samples.npz", "-r", files / "locked.npz")
