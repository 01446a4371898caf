"""`lwd data check`: everything that can be wrong with a data set on disk, found in one pass over it and listed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lwd.data.encoded import MANIFEST, Split, read_manifest
from lwd.data.format import (
    FEATURES,
    FLIP,
    LABELS,
    Shard,
    folder_problems,
    infer_layout,
    is_shard,
    open_shard,
    shard_files,
    shard_key,
    shard_problems,
)
from lwd.data.stats import channel_stats, first_not_finite, load_stats, stats_path
from lwd.errors import UserError
from lwd.files import checksum
from lwd.groups import Group, Layout
from lwd.images.walk import files_in, folders_in
from lwd.runtime.progress import Advance, progress_bar

REACH, BINS = 5.0, 80
"""Histograms run over ``REACH`` standard deviations to either side, in ``BINS`` bins; the last ones take the rest."""
TOLERANCE = 0.05
"""How far statistics files may be off, in standard deviations: five standard errors of SFD's 10 000 images."""
TINY = 1e-12
BLOCK = 128
"""Images read at once."""


@dataclass(frozen=True)
class Channels:
    """A summary of the latents under one key: images, statistics (C,), histograms (C, BINS) in standard deviations."""

    images: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    mean: Tensor
    std: Tensor
    low: float
    high: float
    counts: Tensor


@dataclass
class FolderCheck:
    """The findings in one folder of shards: what it holds, and its problems, a line each."""

    path: Path
    shards: int
    images: int
    problems: list[str] = field(default_factory=list)
    channels: dict[str, Channels] = field(default_factory=dict)


def check(path: Path, layout: Layout | None = None, show: bool = True) -> list[FolderCheck]:
    """Check a data set folder (each subfolder that holds shards) or a folder of shards.

    All values are read once. Without a layout the groups are the keys ``latents`` and ``latents_*``. Statistics are
    compared with those of ``train``, where there is one. Raises UserError where there are no shards at all.
    """
    inside = [path / name for name in folders_in(path) if files_in(path / name, is_shard)]
    folders = sorted(inside, key=lambda f: (f.name != "train", f.name))
    if not folders:
        shard_files(path)
        folders = [path]
    splits: dict[str, Split] = {}
    found = FolderCheck(path, 0, 0)
    if (path / MANIFEST).is_file():
        try:
            splits = read_manifest(path).splits
        except UserError as error:
            found.problems.append(str(error))
    found.problems += [f"{path}: the manifest has split {name!r}, but there are no shards in {path / name}"
                       for name in splits if path / name not in folders]  # fmt: skip
    reports: list[FolderCheck] = []
    reference: dict[str, Channels] = {}
    for folder in folders:
        report = _check_folder(folder, layout, splits.get(folder.name), reference, show)
        reference = reference or report.channels
        reports.append(report)
    reports[0].problems[:0] = found.problems
    return reports


def _check_folder(
    folder: Path,
    layout: Layout | None,
    manifest: Split | None,
    reference: dict[str, Channels],
    show: bool,
) -> FolderCheck:
    files = shard_files(folder)
    report, shards = FolderCheck(folder, len(files), 0), {}
    for file in files:
        try:
            shards[file] = open_shard(file)
        except UserError as error:
            report.problems.append(str(error))
    layout = layout or infer_layout(shards.values())
    if layout is None:
        report.problems.append(f"{folder}: no readable shard has a key 'latents' or 'latents_*'")
        return report
    flip = any(key.endswith(FLIP) for shard in shards.values() for key in shard)
    for file, shard in shards.items():
        report.problems += shard_problems(file, shard, layout, flip, features=True)
    report.problems += folder_problems(folder, shards, layout, flip, features=True)
    report.images = sum(len(s[LABELS]) for s in shards.values() if LABELS in s and s[LABELS].ndim)
    report.problems += _label_problems(folder, shards, manifest)
    names = {key: g.channels for g in layout.groups for key in (shard_key(g), *[shard_key(g) + FLIP] * flip)}
    widths: dict[str, int | None] = {**names, **dict.fromkeys((FEATURES, FEATURES + FLIP))}
    total = sum(shard[key].shape[0] for shard in shards.values() for key in widths if _usable(shard, key, widths[key]))
    with progress_bar(f"check {folder.name}", total, show=show) as advance:
        for key, width in widths.items():
            _check_values(report, shards, key, width, advance, reference.get(key.removesuffix(FLIP)))
    for group in layout.groups:
        report.problems += _stats_problems(report, group, reference or report.channels)
    if manifest is not None:
        report.problems += _checksum_problems(folder, files, manifest)
    return report


def _usable(shard: Shard, key: str, channels: int | None) -> bool:
    """Whether a tensor has the shape that its values can be looked at; `shard_problems` has said why not."""
    tensor = shard.get(key)
    return (
        tensor is not None
        and tensor.ndim > 1
        and tensor.is_floating_point()
        and channels in (None, tensor.shape[1])
        and tensor.numel() > 0
    )


def _label_problems(folder: Path, shards: dict[Path, Shard], manifest: Split | None) -> Iterator[str]:
    per_class = None if manifest is None else manifest.per_class
    good = {f: s[LABELS].long() for f, s in shards.items() if LABELS in s and not s[LABELS].is_floating_point()}
    for file, labels in good.items():
        bad = labels < 0 if per_class is None else (labels < 0) | (labels >= len(per_class))
        if bool(bad.any()):
            row = int(bad.flatten().int().argmax())
            allowed = "at least 0" if per_class is None else f"0 to {len(per_class) - 1}"
            yield f"{file}: label {int(labels.flatten()[row])} of image {row} should be {allowed}"
    if manifest is None or len(good) < len(shards) or not good:
        return
    labels = torch.cat([part.flatten() for part in good.values()])
    if manifest.images not in (None, len(labels)):
        yield f"{folder}: {len(labels)} images, the manifest says {manifest.images}"
    if per_class is not None:
        counts = torch.bincount(labels[(labels >= 0) & (labels < len(per_class))], minlength=len(per_class)).tolist()
        wrong = [c for c, (have, want) in enumerate(zip(counts, per_class, strict=True)) if have != want]
        if wrong:
            c = wrong[0]
            yield f"{folder}: class {c} has {counts[c]} images, the manifest says {per_class[c]}{_more(len(wrong) - 1)}"


def _check_values(
    report: FolderCheck,
    shards: dict[Path, Shard],
    key: str,
    width: int | None,
    advance: Advance,
    reference: Channels | None,
) -> None:
    """Look at all values under one key: are they finite, and, of latents, what are they like?"""
    usable = {file: shard[key] for file, shard in shards.items() if _usable(shard, key, width)}
    if not usable:
        return
    blocks = _finite_blocks(report, usable, key, advance)
    if width is None:
        for _ in blocks:
            pass
        return
    same_width = reference is not None and len(reference.mean) == width
    summary = _Summary(width, reference if same_width else None)
    try:
        mean, std = channel_stats(summary.watch(blocks))
    except ValueError:  # no image is finite; that has been listed
        return
    first = next(iter(usable.values()))
    report.channels[key] = Channels(
        summary.images, first.dtype, tuple(first.shape[1:]), mean.flatten(), std.flatten(),
        summary.low, summary.high, summary.counts,
    )  # fmt: skip


def _finite_blocks(report: FolderCheck, tensors: dict[Path, Tensor], key: str, advance: Advance) -> Iterator[Tensor]:
    """The images under a key, in blocks; those with values that are not finite are left out, and listed by file."""
    for file, tensor in tensors.items():
        bad: list[tuple[int, int]] = []
        for start in range(0, len(tensor), BLOCK):
            block = tensor[start : start + BLOCK]
            keep = torch.ones(len(block), dtype=torch.bool)
            while (place := first_not_finite(block[keep])) is not None:
                row = int(keep.nonzero()[place[0], 0])
                bad.append((start + row, place[1]))
                keep[row] = False
            yield block if bool(keep.all()) else block[keep]
            advance(len(block))
        if bad:
            row, channel = bad[0]
            more = _more(len(bad) - 1, "image")
            report.problems.append(f"{file}: {key!r} of image {row}, channel {channel} is not finite{more}")


class _Summary:
    """Range and histograms of latents that stream by; the bins are ``reference``'s, else by the first block."""

    def __init__(self, channels: int, reference: Channels | None) -> None:
        self.images, self.low, self.high = 0, float("inf"), float("-inf")
        self.counts = torch.zeros(channels * BINS, dtype=torch.int64)
        self._scale: tuple[Tensor, Tensor] | None = None
        if reference is not None:
            self._scale = reference.mean, reference.std.clamp(min=TINY)

    def watch(self, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
        for block in blocks:
            if len(block):
                self._add(block.float())
            yield block

    def _add(self, x: Tensor) -> None:
        self.images += len(x)
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        if self._scale is None:
            mean, std = channel_stats([x])
            self._scale = mean.flatten(), std.flatten().clamp(min=TINY)
        along = (-1, *[1] * (x.ndim - 2))  # a number for each channel, at every position
        mean, std = (each.view(along) for each in self._scale)
        bins = ((x - mean) / std * (BINS / 2 / REACH) + BINS / 2).clamp_(0, BINS - 1).long()
        bins += torch.arange(x.shape[1]).view(along) * BINS
        self.counts += torch.bincount(bins.flatten(), minlength=len(self.counts))


def _stats_problems(report: FolderCheck, group: Group, reference: dict[str, Channels]) -> Iterator[str]:
    key = shard_key(group)
    path, folder, seen = stats_path(report.path, key), report.path, report.channels.get(key)
    if seen is not None and bool((seen.std == 0).any()):
        constant = (seen.std == 0).nonzero().flatten().tolist()
        yield f"{folder}: {key!r}: channel {constant[0]} is constant{_more(len(constant) - 1, 'channel')}"
    like = seen or reference.get(key)
    axes = len(group.shape) if group.shape is not None else 2 if like is None else len(like.shape) - 1
    try:
        mean, std = (t.flatten() for t in load_stats(path, group.channels, axes))
    except UserError as error:
        yield str(error)
        return
    candidates = [c[key] for c in (reference, report.channels) if key in c and len(c[key].mean) == group.channels]
    differences = [_off(path, mean, std, channels) for channels in candidates]
    if all(differences):  # statistics are the training split's, or the folder's own
        yield from differences[:1]


def _off(path: Path, mean: Tensor, std: Tensor, channels: Channels) -> str:
    """A line on how stored statistics (C,) differ from the latents' own; empty where they do not."""
    for what, stored, found in (("mean", mean, channels.mean), ("std", std, channels.std)):
        off = (stored - found).abs() / std > TOLERANCE
        if bool(off.any()):
            c = int(off.int().argmax())
            have, want, more = float(stored[c]), float(found[c]), _more(int(off.sum()) - 1, "channel")
            return f"{path}: {what} of channel {c} is {have:.4g}, the latents have {want:.4g}{more}"
    return ""


def _checksum_problems(folder: Path, files: list[Path], manifest: Split) -> Iterator[str]:
    listed = {shard.file: shard.sha256 for shard in manifest.shards}
    for file in files:
        if file.name not in listed:
            yield f"{file}: not one of the manifest's shards"
        elif checksum(file) != listed[file.name]:
            yield f"{file}: its checksum is not the manifest's: it was changed after encoding"
    for name in sorted(listed.keys() - {file.name for file in files}):
        yield f"{folder / name}: missing, the manifest lists it"


def _more(count: int, what: str = "class") -> str:
    plural = what + ("es" if what.endswith("s") else "s") * (count > 1)
    return f" (and {count} more {plural})" if count else ""
