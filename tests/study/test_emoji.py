"""Emoji: small hand-made packages, packed as npm packs them, and the real ones where they have been imported."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import avg_pool2d

from lwd.config import load as load_config
from lwd.datasets.prepared import read_prepared
from lwd.encoders.decoder import load_classifier, load_decoder
from lwd.errors import UserError
from lwd.stages.encode.run import run as encode
from lwd.stages.experiment import Experiment

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments" / "study"))

import emoji  # noqa: E402
import emoji_package  # noqa: E402
from emoji import CLASSES, Content, family, fingerprint, half_on_white, held_out, prepare, read_packages  # noqa: E402

VENDORS = ("google", "twitter")
Files = dict[str, bytes]


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def plain(grey: int, size: int = 64) -> bytes:
    """A picture of one opaque colour; no two greys are near each other at half size."""
    return png(np.full((size, size, 4), (grey, grey, grey, 255), np.uint8))


def entry(
    unified: str, category: str, order: int, *, google: bool = True, twitter: bool = True, tones: int = 0
) -> dict:
    """An entry as in emoji.json, keys that are not read among them."""

    def one(unified: str) -> dict:
        both = {"has_img_apple": True, "has_img_google": True, "has_img_twitter": twitter}
        return {"unified": unified, "image": f"{unified.lower()}.png", "non_qualified": None, **both}

    skins = {f"1F3F{'BCDEF'[i]}": one(f"{unified}-1F3F{'BCDEF'[i]}") for i in range(tones)}
    named = {**one(unified), "category": category, "subcategory": "x", "sort_order": order, "short_names": [unified]}
    return {**named, "skin_variations": skins} if skins else named


ENTRIES = [
    entry("1F5FF", "Objects", 400),  # not in Unicode's order
    *(entry(f"1F60{i}", "Smileys & Emotion", 10 + i) for i in range(7)),
    entry("1F44B", "People & Body", 100, tones=2),
    entry("1F468-200D-1F33E", "People & Body", 110, tones=1, twitter=False),
    entry("1F3FB", "Component", 900),
]
"""Smileys: seven families, of which the sixth, 1F605, is held out."""


def drawn(vendor: str, entries: list[dict]) -> list[str]:
    both = [one for e in entries for one in (e, *e.get("skin_variations", {}).values())]
    return [one["image"] for one in both if one[f"has_img_{vendor}"]]


def contents(vendor: str, entries: list[dict] = ENTRIES) -> Files:
    """The members of a package: every picture of its own grey."""
    about = {"name": f"emoji-datasource-{vendor}", "version": "16.0.0", "license": "MIT"}
    files = {"package/package.json": json.dumps(about).encode(), "package/emoji.json": json.dumps(entries).encode()}
    start = 0 if vendor == "google" else 100
    for i, image in enumerate(drawn(vendor, entries)):
        files[f"package/img/{vendor}/64/{image}"] = plain(start + 3 * i)
    return files


def pack(files: Files) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def tgz(folder: Path, vendor: str) -> Path:
    return folder / f"emoji-datasource-{vendor}-16.0.0.tgz"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two small packages."""
    folder = tmp_path / "packs"
    folder.mkdir()
    for vendor in VENDORS:
        tgz(folder, vendor).write_bytes(pack(contents(vendor)))
    return folder


def pin(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make the packages in ``folder`` those that are wanted."""
    splits = read_packages(folder)
    pinned = {split: Content(len(pair[0]), fingerprint(*pair)) for split, pair in splits.items()}
    monkeypatch.setattr(emoji, "CONTENT", pinned)


Refused = Callable[[], str]


@pytest.fixture
def refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """The one line with which the command ends; nothing is written."""

    def ends() -> str:
        assert emoji.main(["--from", str(folder), "--to", str(tmp_path / "out")]) == 2
        said = capsys.readouterr()
        line, end = said.err[:-1], said.err[-1]
        assert said.out == "" and not (tmp_path / "out").exists()
        assert end == "\n" and "\n" not in line and line.startswith("emoji: ")
        return line

    return ends


def test_the_command_writes_prepared_data_sets(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Classes, order and split by hand: Noto's greys are 0, 3, 6, ... in emoji.json's order, Twemoji's 100, 103, ..."""
    pin(monkeypatch, folder)
    assert emoji.main(["--from", str(folder), "--to", str(tmp_path / "out")]) == 0
    written = [tmp_path / "out" / f"{name}.safetensors" for name in ("emoji", "emoji-16")]
    assert capsys.readouterr().out == "".join(f"wrote {path}\n" for path in written)
    smileys = [(3 * i, 0) for i in range(1, 8)]
    both = [pair for grey, label in smileys for pair in ((grey, label), (100 + grey, label))]
    people = [(24, 1), (27, 1), (30, 1), (124, 1), (127, 1), (130, 1), (33, 1), (36, 1)]
    expected = {"train": [*both[:10], *both[12:], *people, (0, 6), (100, 6)], "heldout": both[10:12]}
    for path, size in zip(written, (32, 16), strict=True):
        for split, (images, labels) in read_prepared(path).items():
            assert images.shape == (len(expected[split]), 3, size, size) and images.dtype == torch.float32
            assert labels.dtype == torch.int64
            levels = (images + 1) * 127.5
            assert (levels - levels.mean((1, 2, 3), keepdim=True)).abs().max() < 1e-4  # float32's rounding
            greys = levels.mean((1, 2, 3)).round().long().tolist()
            assert list(zip(greys, labels.tolist(), strict=True)) == expected[split]


def test_images_are_bit_for_bit_those_of_earlier_encodings(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """As encoding read them when the library did: levels / 127.5 - 1, and of that the means of 2x2 pixels."""
    colours = np.random.default_rng(1).integers(0, 256, (64, 64, 4), np.uint8)
    files = contents("google") | {"package/img/google/64/1f601.png": png(colours)}
    tgz(folder, "google").write_bytes(pack(files))
    pin(monkeypatch, folder)
    whole, half = (read_prepared(path) for path in prepare(folder, tmp_path))
    for split, (levels, labels) in read_packages(folder).items():
        images = levels.float() / 127.5 - 1
        assert torch.equal(whole[split][0], images) and torch.equal(whole[split][1], labels)
        assert torch.equal(half[split][0], avg_pool2d(images, 2)) and torch.equal(half[split][1], labels)
    assert len(whole["train"][0][2].unique()) > 100  # the picture of many colours, 1F601


def test_a_package_is_missing(folder: Path, refused: Refused) -> None:
    tgz(folder, "twitter").unlink()
    line = refused()
    assert line == (
        f"emoji: {folder}: no emoji-datasource-twitter-16.0.0.tgz; "
        "`npm pack emoji-datasource-twitter@16.0.0` fetches it"
    )


def changed(**change: str) -> Callable[[Files], None]:
    def change_it(files: Files) -> None:
        files["package/package.json"] = json.dumps(json.loads(files["package/package.json"]) | change).encode()

    return change_it


def put(name: str, data: bytes) -> Callable[[Files], None]:
    return lambda files: files.update({name: data})


def edit(index: int, **change: object) -> Callable[[Files], None]:
    return put("package/emoji.json", json.dumps([*ENTRIES[:index], ENTRIES[index] | change]).encode())


FACE = "package/img/twitter/64/1f603.png"
HUGE = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">II", 60_000, 60_000) + bytes(9)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (changed(version="15.1.2"), "is emoji-datasource-twitter@15.1.2, needed is emoji-datasource-twitter@16.0.0"),
        (
            changed(name="emoji-datasource-apple"),
            "is emoji-datasource-apple@16.0.0, needed is emoji-datasource-twitter",
        ),
        (lambda files: files.pop("package/package.json"), "package/package.json is missing"),
        (lambda files: files.pop("package/emoji.json"), "package/emoji.json is missing"),
        (put("package/emoji.json", b'[{"unified": '), "malformed JSON"),
        (put("package/emoji.json", b"\xff\xfe\xff"), "malformed JSON"),
        (put("package/emoji.json", b"[" * 100_000), "malformed JSON"),
        (put("package/emoji.json", b"{}"), "its JSON is not emoji-data's: the whole: "),
        (put("package/emoji.json", b"[]"), "pictures for train, those of npm 6500"),
        (put(FACE, plain(9)), "pictures for train, those of npm 6500"),
        (edit(3, sort_order="3"), "its JSON is not emoji-data's: 3.sort_order: "),
        (edit(3, has_img_twitter=1), "its JSON is not emoji-data's: 3.has_img_twitter: "),
        (edit(3, category="Weather"), "unknown category 'Weather'"),
        (edit(3, image="../../../../etc/hostname"), "package/img/twitter/64/../../../../etc/hostname is missing"),
        (edit(3, image="/etc/hostname"), "package/img/twitter/64//etc/hostname is missing"),
        (lambda files: files.pop(FACE), f"{FACE} is missing"),
        (lambda files: files.pop("package/img/twitter/64/1f44b-1f3fc.png"), "1f44b-1f3fc.png is missing"),
        (put(FACE, plain(9, 32)), "img/twitter/64/1f603.png: 32x32 pixels, not 64x64"),
        (put(FACE, HUGE), "img/twitter/64/1f603.png: 60000x60000 pixels, not 64x64"),
        (put(FACE, bytes(2**16 + 1)), f"{FACE} has 65537 bytes, more than the 65536 allowed"),
        (put(FACE, b""), "img/twitter/64/1f603.png: not a PNG file"),
        (put(FACE, b"GIF89a" + bytes(50)), "img/twitter/64/1f603.png: not a PNG file"),
        (put(FACE, plain(9)[:60]), "img/twitter/64/1f603.png: "),
        (put(FACE, plain(9)[:50] + b"\xff" * 20 + plain(9)[70:]), "img/twitter/64/1f603.png: "),
    ],
)
def test_a_package_that_is_not_it(
    folder: Path, refused: Refused, damage: Callable[[Files], None], complaint: str
) -> None:
    files = contents("twitter")
    damage(files)
    tgz(folder, "twitter").write_bytes(pack(files))
    line = refused()
    assert complaint in line and line.startswith(f"emoji: {folder}")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda data: b"", "a tar file|gzip"),
        (lambda data: data[:-9], "not a whole gzip file"),
        (lambda data: data[: len(data) // 2], "not a whole gzip file"),
        (lambda data: data[:20], "not a whole gzip file"),
        (lambda data: b"no" + data[2:], "not a whole gzip file"),
        (lambda data: data[:-8] + bytes(4) + data[-4:], "not a whole gzip file .*CRC"),
        (lambda data: gzip.compress(b"no tar file" * 100), "not a tar file"),
        (lambda data: gzip.compress(gzip.decompress(data)[:5000]), "is missing|damaged|cut short"),
    ],
)
def test_a_damaged_file(folder: Path, refused: Refused, damage: Callable[[bytes], bytes], complaint: str) -> None:
    path = tgz(folder, "google")
    path.write_bytes(damage(path.read_bytes()))
    line = refused()
    assert line.startswith(f"emoji: {path}: ")
    with pytest.raises(UserError, match=complaint):
        prepare(folder, folder)


def test_a_package_that_unpacks_to_too_much(folder: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emoji_package, "PACKAGE_LIMIT_BYTES", 10_000)
    assert "unpacks to more than 10000 bytes" in refused()


def test_a_link_is_not_followed(folder: Path, refused: Refused, tmp_path: Path) -> None:
    """A link in the place of a picture is as good as no picture, wherever it points."""
    (tmp_path / "secret.png").write_bytes(plain(1))
    files = contents("twitter")
    del files[FACE]
    out = io.BytesIO(gzip.decompress(pack(files)))
    for kind, target in ((tarfile.SYMTYPE, str(tmp_path / "secret.png")), (tarfile.LNKTYPE, FACE.replace("3", "2"))):
        out.seek(0)
        with tarfile.open(fileobj=out, mode="a:") as archive:
            member = tarfile.TarInfo(FACE)
            member.type, member.linkname = kind, target
            archive.addfile(member)
        tgz(folder, "twitter").write_bytes(gzip.compress(out.getvalue()))
        assert f"{FACE} is missing" in refused()


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_other_pictures_of_the_right_number_are_refused(
    folder: Path, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    """1F602 is for training, 1F605 held out; the pinned digest is of bytes put together here."""
    pin(monkeypatch, folder)
    content = emoji.CONTENT["heldout"]
    ones = bytes([18] * 3072 + [118] * 3072)  # greys as in test_the_command_keeps_a_copy
    assert content == Content(2, hashlib.sha256(ones + bytes(2)).hexdigest())
    face = {"train": "1f602", "heldout": "1f605"}[split]
    tgz(folder, "google").write_bytes(pack(contents("google") | {f"package/img/google/64/{face}.png": plain(222)}))
    assert "not the pictures of npm's packages (the SHA-256 differs)" in refused()
    tgz(folder, "google").write_bytes(pack(contents("google")))
    prepare(folder, tmp_path)


def test_one_emoji_is_not_the_set(folder: Path, refused: Refused) -> None:
    for vendor in VENDORS:
        tgz(folder, vendor).write_bytes(pack(contents(vendor, ENTRIES[:1])))
    assert "hold 2 pictures for train, those of npm 6500" in refused()


def test_half_on_white_is_pillows() -> None:
    """Composited in float64 and averaged; within half a level of it, the rounding, which no other number is."""
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (3, 8, 6, 4), np.uint8)
    alpha = pictures[..., 3:] / 255
    exact = (pictures[..., :3] * alpha + 255 * (1 - alpha)).reshape(3, 4, 2, 3, 2, 3).mean((2, 4)).transpose(0, 3, 1, 2)
    half = half_on_white(pictures)
    assert half.dtype == np.uint8 and half.shape == (3, 3, 4, 3)
    assert np.abs(half - exact).max() <= 0.5 + 1e-9
    for picture, ours in zip(pictures, half, strict=True):  # Pillow rounds each pixel of the composite, too
        white = Image.new("RGBA", (6, 8), "white")
        pasted = Image.alpha_composite(white, Image.fromarray(picture)).convert("RGB").reduce(2)
        assert np.abs(np.asarray(pasted).astype(int) - ours.transpose(1, 2, 0)).max() <= 1


def test_colour_beneath_no_alpha_is_white() -> None:
    """And one opaque red pixel of four gives a quarter of red: (255 + 3 x 255) / 4, (0 + 3 x 255) / 4 = 191.25."""
    picture = np.zeros((1, 2, 2, 4), np.uint8)
    picture[0, 0, 0] = 255, 0, 0, 255
    assert half_on_white(picture).reshape(3).tolist() == [255, 191, 191]


@pytest.mark.parametrize("form", ["RGBA", "LA", "P", "RGB", "L"])
def test_every_form_of_png(folder: Path, form: str) -> None:
    """Left half transparent where the form knows of that, right half a grey of 51, which is in the web palette."""
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[:, 32:] = 51, 51, 51, 255
    image, out = Image.fromarray(rgba), io.BytesIO()
    if form == "P":
        image = image.convert("RGB").convert("P")
        image.save(out, "PNG", transparency=int(np.asarray(image)[0, 0]))
    else:
        image.convert(form).save(out, "PNG")
    files = contents("google") | {"package/img/google/64/1f600.png": out.getvalue()}
    tgz(folder, "google").write_bytes(pack(files))
    levels = read_packages(folder)["train"][0][0]
    assert (levels[:, :, :16] == (255 if form in ("RGBA", "LA", "P") else 0)).all()
    assert (levels[:, :, 16:] == 51).all()


def test_families() -> None:
    alike = [
        ("1F468-200D-1F33E", "1F469-200D-1F33E", "1F9D1-200D-1F33E"),  # farmers
        ("1F6B6", "1F6B6-200D-2640-FE0F", "1F6B6-200D-2642-FE0F-200D-27A1-FE0F", "1F6B6-200D-27A1-FE0F"),  # walkers
        ("1F46B", "1F46C", "1F46D", "1F9D1-200D-1F91D-200D-1F9D1"),  # holding hands
        ("1F491", "1F468-200D-2764-FE0F-200D-1F468", "1F469-200D-2764-FE0F-200D-1F468"),  # couple with heart
        ("1F48F", "1F469-200D-2764-FE0F-200D-1F48B-200D-1F469"),  # kiss
        ("1F385", "1F936", "1F9D1-200D-1F384"),  # Santa
        ("1F468-200D-1F467", "1F469-200D-1F466", "1F9D1-200D-1F9D2"),  # a parent, a child
        ("1F550", "1F55B", "1F55C", "1F567"),  # clocks
        ("2640-FE0F", "2640-FE0F"),  # the sign itself
        ("2642-FE0F",),
        ("27A1-FE0F",),
        ("1F1EB-1F1F7",),  # France
        ("1F1E8-1F1F5",),  # Clipperton
        ("1F549-FE0F",),  # Om
        ("1F568",),
    ]
    names = [{family(unified) for unified in row} for row in alike]
    assert all(len(name) == 1 for name in names)
    assert len(set.union(*names)) == len(alike)


def test_held_out_families_and_twins() -> None:
    """Families a, b, ..., of label 0 but for the last; those that share a picture count as one."""
    families = list("abacdefghhij")
    images = torch.arange(len(families), dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone()
    labels = torch.zeros(len(families), dtype=torch.int64)
    labels[-1] = 1
    assert held_out(images, labels, families).tolist() == [name == "f" for name in families]  # a b c d e f
    apart = torch.tensor([int(name in "bd") for name in families])
    assert held_out(images, apart, families).tolist() == [name == "h" for name in families]  # a c e f g h, and b d
    images[families.index("e")] = images[families.index("b")]
    assert held_out(images, labels, families).tolist() == [name == "g" for name in families]  # a be c d f g
    images[families.index("g")] = images[families.index("i")]
    assert held_out(images, labels, families).tolist() == [name in "gi" for name in families]


REAL = ROOT / "runs" / "emoji.safetensors"


@pytest.mark.skipif(not REAL.is_file(), reason="no emoji here: python experiments/study/emoji.py --from FOLDER")
def test_the_real_pictures() -> None:
    """Counts as in README.md; no picture in both splits; corners of a face are white and its middle yellow."""
    counts = {
        "train": [282, 3954, 266, 220, 372, 142, 440, 374, 450],
        "heldout": [56, 568, 52, 42, 64, 28, 88, 74, 90],
    }
    splits = read_prepared(REAL)
    for split, each in counts.items():
        assert torch.bincount(splits[split][1], minlength=len(CLASSES)).tolist() == each
    train, heldout = ({image.numpy().tobytes() for image in splits[split][0]} for split in counts)
    assert not train & heldout
    images = splits["train"][0]
    red, green, blue = images[0, :, 14:18, 14:18].mean((1, 2))
    assert red > 0.7 and green > 0.2 and blue < 0.2  # the grinning face
    assert (images[0, :, 0, 0] == 1).all()


@pytest.mark.parametrize("encoder", ["small-vit", "random-vit"])
def test_encode_in_colour(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str) -> None:
    """Through `lwd encode`: 12 channels of texture, decoded bit for bit; a ViT and a judge of colour."""
    files = contents("google")
    colours = np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8)
    tgz(folder, "google").write_bytes(pack(files | {"package/img/google/64/1f605.png": png(colours)}))
    pin(monkeypatch, folder)
    dataset = prepare(folder, tmp_path)[0]
    config = tmp_path / "emoji.yaml"
    config.write_text(
        "groups: [{name: tex, channels: 12}, {name: sem, channels: 4}]\n"
        "leader: sem\nmodel: {name: LightningDiT-Ti/1, num_classes: 9}\ncompute: {progress: false}\n"
        "encode: {encoder_steps: 1, judge_steps: 1, texture: {group: tex}, semantic: {group: sem}}\n"
    )
    more = [f"output={tmp_path / 'run'}", f"encode.dataset={dataset}", f"encode.semantic.encoder={encoder}"]
    settings = load_config(Experiment, config, more)
    data = encode(settings)
    (path,) = (data / "heldout").glob("*.safetensors")
    shard = load_file(path)
    images, labels = read_prepared(dataset)["heldout"]
    assert shard["latents"].shape == (2, 12, 16, 16) and shard["latents_sv"].shape == (2, 4, 16, 16)
    assert torch.equal(shard["labels"], labels)
    composite = torch.cat([shard["latents"], shard["latents_sv"]], dim=1)
    assert torch.equal(load_decoder(data).decode(composite, settings.layout), images)
    assert len(images[0].unique(dim=0)) == 3  # Noto's: red, green and blue differ
    assert load_classifier(data)(images).shape == (2, 7)
