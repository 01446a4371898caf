"""The format of manifest.json, in which `lwd encode` describes its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import NonNegativeInt

from lwd.records import Record, Size, read_record

MANIFEST = "manifest.json"


JUDGE = "judge.safetensors"
TEXTURE = "texture.safetensors"
"""The weights of a texture encoder that was trained on the spot."""


FORMAT = "lwd.data/1"


class ShardFile(Record):
    """One shard of a split."""

    file: str
    sha256: str


class Split(Record):
    """The images of one split; ``per_class``: how many there are of each label."""

    images: NonNegativeInt | None = None
    per_class: tuple[NonNegativeInt, ...] | None = None
    shards: tuple[ShardFile, ...] = ()


class Part(Record):
    """The facts about an encoder, or about the classifier under the key ``judge``."""

    group: str | None = None
    kind: str | None = None
    explained_variance_ratio: tuple[float, ...] = ()
    accuracy_heldout: float | None = None


class Reconstructed(Record):
    """How well a split's images come back: root mean square error in grey levels of 255, the peak signal-to-noise ratio
    in dB (None: exactly), and the KL in nats per image."""

    split: str
    images: Size
    rmse: float
    psnr: float | None
    kl: float


class Texture(Part):
    """The encoder of the group that is decoded back to pixels; channels are those of an encoder made on the spot, scale
    and shift those of a pretrained one's latents."""

    group: str
    encoder: str
    factor: Size = 2
    path: str = ""
    channels: Size | None = None
    image_channels: Size | None = None
    scale: float | None = None
    shift: float | None = None
    weights_sha256: str | None = None
    reconstruction: Reconstructed | None = None


class Judge(Part):
    """The sizes of the small classifier that judges samples."""

    channels: Size
    classes: Size
    image_channels: Size
    image_size: Size | None = None
    """To which images are averaged down first; None: it sees them as they are."""


class Manifest(Record):
    """The content of manifest.json; ``judge`` is None of images on disk that were encoded without."""

    what: ClassVar[str] = "a manifest of encoded data"
    remedy: ClassVar[str] = "run `lwd encode` again"

    format: Literal["lwd.data/1"]
    recipe: dict[str, Any]
    fingerprint: str
    dataset: str | None = None
    splits: dict[str, Split]
    texture: Texture
    semantic: Part | None = None
    further: tuple[Part, ...] = ()
    judge: Judge | None


def read_manifest(folder: Path) -> Manifest:
    """The manifest of encoded data; raises UserError where there is none."""
    return read_record(folder / MANIFEST, Manifest)


def fingerprint_of(folder: Path) -> str | None:
    """What its manifest says that encoded data is; None where there is no manifest."""
    return read_manifest(folder).fingerprint if (folder / MANIFEST).is_file() else None
