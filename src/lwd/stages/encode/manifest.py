"""The end of `lwd encode`: statistics, the list of unreadable images, and the manifest: it says that all is whole."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import adaptive_avg_pool2d

from lwd.data.encoded import FORMAT, JUDGE, MANIFEST
from lwd.data.stats import stats_path
from lwd.data.writing import write_stats
from lwd.datasets.prepared import Split
from lwd.encoders.composite import CompositeEncoder
from lwd.encoders.pca import PatchPCA
from lwd.encoders.small import SmallViT
from lwd.errors import UserError
from lwd.files import atomic_path, copy_file, printable, write_json
from lwd.groups import Layout
from lwd.images.crop import CroppedImages
from lwd.images.sheets import save_grid, to_unit
from lwd.images.walk import LeftOut
from lwd.runtime.checkpoint import load_module, versions
from lwd.stages.encode.begun import facts_of, weights_of
from lwd.stages.encode.feed import ImagesOrFiles, image_shape
from lwd.stages.encode.settings import EncodeSettings, SemanticSettings
from lwd.stages.encode.small import accuracy, in_memory, is_judged, is_turned, lessons, small_judge
from lwd.stages.encode.texture import texture_facts
from lwd.stages.encode.writer import ShardRecord, read_shard_record, record_path, shards_of

UNREADABLE = "unreadable.csv"
"""Of the files beside and among images on disk: which were not taken, and why."""
SHEET, SHEET_IMAGES, SHEET_PIXELS = "first-images.png", 64, 128
"""Beside the shards of a split: its first images, as the encoders get them, or smaller."""


def finish(
    folder: Path,
    layout: Layout,
    settings: EncodeSettings,
    recipe: Mapping[str, Any],
    images: Mapping[Split, ImagesOrFiles],
    encoders: CompositeEncoder,
) -> None:
    """Statistics of the training split beside every split, sheets of images, what was not taken, and the manifest.

    Raises UserError where a shard is missing or a split has no image.
    """
    numbers = {split: range(len(shards_of(len(source), settings.shard_images))) for split, source in images.items()}
    records = {split: [_record(folder / split, number) for number in numbers[split]] for split in images}
    skipped = [(split, *entry) for split, rows in records.items() for row in rows for entry in row.skipped]
    skipped += [(split, *entry) for split, source in images.items() for entry in left_out(source)]
    write_unreadable(folder / UNREADABLE, skipped)
    if empty := [split for split, rows in records.items() if not sum(row.images for row in rows)]:
        raise UserError(f"{folder / empty[0]}: none of the images could be read; see {folder / UNREADABLE}")
    write_stats(folder / "train", layout)
    for stats in (folder / "train").glob(stats_path(Path(), "*").name):
        for split in images:
            if split != "train":
                copy_file(stats, folder / split / stats.name)
    for split, source in images.items():
        _write_sheet(folder / split / SHEET, source)
    write_json(folder / MANIFEST, _manifest(folder, settings, recipe, records, images, encoders))
    for split in images:
        for number in numbers[split]:
            record_path(folder / split, number).unlink()


def left_out(images: ImagesOrFiles) -> Sequence[LeftOut]:
    """What lies among images on disk and is none of them."""
    return images.source.left_out if isinstance(images, CroppedImages) else ()


def _write_sheet(path: Path, images: ImagesOrFiles) -> None:
    first = [images[index] for index in range(min(SHEET_IMAGES, len(images)))]
    good = to_unit(torch.stack([crop.image for crop in first if crop.error is None] or [first[0].image]))
    if good.shape[-1] > SHEET_PIXELS:
        good = adaptive_avg_pool2d(good, SHEET_PIXELS)
    save_grid(good, path, columns=8)


def write_unreadable(path: Path, entries: Sequence[tuple[str, ...]]) -> None:
    """A CSV of (split, file, error); no file where there is nothing to list."""
    if not entries:
        path.unlink(missing_ok=True)
        return
    rows = [[printable(cell) for cell in entry] for entry in entries]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("split", "file", "error"), *rows])


def _record(folder: Path, number: int) -> ShardRecord:
    record = read_shard_record(folder, number)
    if record is None:
        raise UserError(f"{record_path(folder, number)}: missing; start lwd encode again, it makes what is missing")
    return record


def _manifest(
    folder: Path,
    settings: EncodeSettings,
    recipe: Mapping[str, Any],
    records: Mapping[Split, list[ShardRecord]],
    images: Mapping[Split, ImagesOrFiles],
    encoders: CompositeEncoder,
) -> dict[str, Any]:
    sums = [row.sha256 for rows in records.values() for row in rows]
    train = images["train"]
    classes = 1 + max(int(label) for rows in records.values() for row in rows for label in row.labels)
    return {
        "format": FORMAT,
        "recipe": dict(recipe),
        "fingerprint": hashlib.sha256("".join(sums).encode()).hexdigest()[:12],
        "dataset": settings.dataset,
        "classes": train.source.classes if isinstance(train, CroppedImages) else None,
        "splits": {split: _split(rows, images[split], classes) for split, rows in records.items()},
        "texture": settings.texture.model_dump(mode="json")
        | weights_of(encoders.texture)
        | texture_facts(encoders.texture, settings, images),
        "semantic": _described(settings.semantic, encoders, settings, images),
        "further": [_described(part, encoders, settings, images) for part in settings.further],
        "repa": settings.repa.model_dump(mode="json") | facts_of(encoders.repa, image_shape(train)[1]),
        "judge": _judge(folder, settings, images),
        "versions": versions(),
    }


def _split(rows: Sequence[ShardRecord], images: ImagesOrFiles, classes: int) -> dict[str, Any]:
    counts = sum((Counter({int(label): n for label, n in row.labels.items()}) for row in rows), Counter[int]())
    return {
        "images": counts.total(),
        "skipped": sum(len(row.skipped) for row in rows) + len(left_out(images)),
        "animated": sum(row.animated for row in rows),
        "per_class": [counts[label] for label in range(classes)],
        "shards": [row.model_dump(include={"file", "images", "sha256"}) for row in rows if row.file],
    }


def _described(
    part: SemanticSettings,
    encoders: CompositeEncoder,
    settings: EncodeSettings,
    images: Mapping[Split, ImagesOrFiles],
) -> dict[str, Any]:
    """A group that is not decoded: its settings, its network, and what its compressor and network reach."""
    network, compressor = encoders.others[part.group]
    facts = part.model_dump(mode="json") | facts_of(network, image_shape(images["train"])[1])
    if isinstance(compressor, PatchPCA):
        facts["explained_variance_ratio"] = compressor.explained_variance_ratio.tolist()
    if isinstance(network, SmallViT) and "heldout" in images:
        seen = lessons(network, images["heldout"], settings, False)
        facts["accuracy_heldout"] = accuracy(network, seen)
        if is_turned(images["train"]):
            facts["learned"] = "quarter turns"
    return facts


def _judge(folder: Path, settings: EncodeSettings, images: Mapping[Split, ImagesOrFiles]) -> dict[str, Any] | None:
    train = images["train"]
    if not is_judged(settings, train):
        return None
    judge = small_judge(train)
    load_module(judge, folder / JUDGE)
    pixels = {} if judge.image_size is None else {"image_size": judge.image_size}
    facts: dict[str, Any] = {
        "channels": judge.head.in_features,
        "classes": judge.head.out_features,
        "image_channels": image_shape(train)[0],
        **pixels,
    }
    if "heldout" in images:
        facts["accuracy_heldout"] = accuracy(
            judge.eval(), in_memory(images["heldout"], settings, judge.image_size, False)
        )
    return facts
