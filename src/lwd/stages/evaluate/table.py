"""Evaluations as tables, in the column order of the papers, for a screen or as markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from lwd.errors import UserError
from lwd.stages.evaluate.record import Evaluation

_UNGUIDED = {
    "SFD-XL": {"70K": 8.79, "120K": 6.22, "400K": 3.53, "1M": 2.82, "2M": 2.74, "4M": 2.54},
    "learned": {"70K": 6.89, "120K": 4.93, "400K": 2.87, "800K": 2.53, "1M": 2.37, "2M": 2.21, "3M": 2.14},
    "DINO-PCA, fixed offset": {"400K": 4.06},
    "DINO-PCA, learned": {"400K": 2.97},
    "CLIP-PCA, learned": {"400K": 4.54},
}
"""FID by steps. Tables 1 and 3; CLIP's 4.89 without a schedule is of another compression (VAE)."""

_GUIDED: dict[str, tuple[float, ...]] = {
    "SFD-XL, 80 epochs": (1.30, 3.87, 233.4, 0.78, 0.64),
    "SFD-XL, 800 epochs": (1.06,),
    "SFD-XXL, 800 epochs": (1.04,),
    "learned, 80 epochs": (1.14, 3.79, 248.4, 0.78, 0.71),
    "learned, 200 epochs": (1.05, 3.79, 273.0, 0.78, 0.72),
    "learned, 600 epochs": (1.02, 3.78, 270.8, 0.78, 0.66),
}
"""With AutoGuidance: FID, sFID, Inception Score, precision, recall. Table 2."""

_ORDER = ("fid", "sfid", "inception_score", "precision", "recall")


def published_rows() -> list[Row]:
    """Unguided, then guided."""
    rows = [
        Row(f"published: {name}, {steps}", {"fid": fid}) for name, by in _UNGUIDED.items() for steps, fid in by.items()
    ]
    return rows + [
        Row(f"published: {name}, AutoGuidance", dict(zip(_ORDER, values, strict=False)))
        for name, values in _GUIDED.items()
    ]


COLUMNS = {  # metric: title, decimals
    "fid": ("FID", 2),
    "sfid": ("sFID", 2),
    "inception_score": ("IS", 1),
    "precision": ("precision", 2),
    "recall": ("recall", 2),
    "kid": ("KID", 5),
    "density": ("density", 2),
    "coverage": ("coverage", 2),
    "fd_dinov2": ("FD-DINOv2", 1),
    "frechet": ("Fréchet", 3),
    "frechet_real": ("training images", 3),
    "accuracy": ("accuracy", 3),
}


@dataclass(frozen=True)
class Row:
    """One line: a name, values by metric, and half the widths of their intervals."""

    name: str
    values: Mapping[str, float]
    margins: Mapping[str, float] = field(default_factory=dict)


def row(record: Evaluation) -> Row:
    """Of one evaluation."""
    margins = {name: (found["high"] - found["low"]) / 2 for name, found in record.intervals.items()}
    return Row(" ".join(str(record.samples.get("path", record.path)).splitlines()), record.metrics, margins)


def table(rows: Sequence[Row], markdown: bool = False) -> str:
    """Columns that any row fills; a dash where a row has no value."""
    columns = [metric for metric in COLUMNS if any(metric in row.values for row in rows)]
    lines = [["", *(COLUMNS[metric][0] for metric in columns)]]
    lines += [[row.name, *(_cell(row, metric) for metric in columns)] for row in rows]
    if markdown:
        lines.insert(1, ["---"] * len(lines[0]))
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def report(record: Evaluation) -> str:
    """What the command prints of one evaluation: the table, extrapolations, and what the samples are."""
    lines = [table([row(record)])]
    if record.intervals:
        lines.append(f"± half the {record.settings['confidence']:.0%} interval (linearised bootstrap)")
    lines += _warnings(record)
    for name, limit in record.extrapolations.items():
        title, decimals = COLUMNS[name]
        points = ", ".join(
            f"{value:.{decimals}f} ({count})" for count, value in zip(limit["counts"], limit["values"], strict=True)
        )
        lines.append(f"{title} by samples: {points}; infinitely many: {_limit(limit, decimals)}")
    inception = record.extractors.get("inception", {})
    if not inception.get("published_weights", True):
        digest = inception["weights_sha256"]
        lines.append(f"NOT the published Inception weights (sha256 {digest}): they compare with none published")
    if "nfe" in record.samples:
        lines.append(f"{record.samples['nfe']:.1f} evaluations per sample")
    lines.append(
        f"{record.samples.get('count')} samples against {record.reference.get('path')} "
        f"({record.reference.get('count') or 'statistics'})"
    )
    return "\n".join(lines)


def _limit(limit: Mapping[str, Any], decimals: int) -> str:
    """No Fréchet distance is negative; its unbiased estimate may be, near 0."""
    value, error = limit["infinity"], limit["standard_error"]
    text = f"{value:.{decimals}f}" + ("" if error is None else f" ± {error:.{decimals}f} (standard error)")
    if value >= 0:
        return text
    if error is None:
        return f"{text} (no distance is negative, and evaluate.bootstrap=0 leaves its error unknown)"
    within = value + 2 * error >= 0
    return f"{text}, {'consistent with 0' if within else 'too low to be true: the samples are too few'}"


def _warnings(record: Evaluation) -> list[str]:
    """What a Fréchet distance does not say of itself."""
    lines = []
    for name, details in record.details.items():
        title = COLUMNS[name][0]
        if details.get("samples_per_feature", 1) < 1:
            lines.append(
                f"{title}: fewer samples than features ({details['samples_per_feature']:.2f} each): its bias is far "
                "larger than its interval; compare only equal counts"
            )
        stored = [side for side, origin in details.get("statistics", {}).items() if origin != "computed"]
        if stored:
            lines.append(f"{title}: by the statistics stored with the {' and '.join(stored)}, not by their images")
    return lines + _split_warnings(record)


_NOTICEABLE, _DEVIATIONS = 0.02, 4
"""How much lower than in random order, as a share and in deviations, a score is noticeably lower."""


def _split_warnings(record: Evaluation) -> list[str]:
    """What the Inception Score, whose splits are as long as ADM's and in the images' order, does not say of itself."""
    details, size = record.details.get("inception_score", {}), record.settings.get("split_size")
    title, decimals = COLUMNS["inception_score"]
    lines, last, splits = [], details.get("last_split", size), details.get("splits", 1)
    if last != size and splits > 1:
        lines.append(
            f"{title}: the last of {splits} splits has {last} of {size} images and counts as much as the others; "
            f"compare only equal counts, best multiples of {size}"
        )
    elif last != size:
        lines.append(f"{title}: of one split of {last} images, not {size}: fewer give less; compare only equal counts")
    random, value = details.get("in_random_order"), record.metrics.get("inception_score")
    if random is not None and value is not None:
        lower = random["mean"] - value
        if lower > max(_NOTICEABLE * random["mean"], _DEVIATIONS * random["deviation"]):
            lines.append(
                f"{title}: {random['mean']:.{decimals}f} if the images came in random order; their own is by class, or "
                "uneven, and ADM's splits follow it: shuffle them"
            )
    return lines


def _cell(row: Row, metric: str) -> str:
    if metric not in row.values:
        return "-"
    decimals = COLUMNS[metric][1]
    margin = f" ± {row.margins[metric]:.{decimals}f}" if metric in row.margins else ""
    return f"{row.values[metric]:.{decimals}f}{margin}"


_SETTINGS = ("k", "density_k", "distances", "split_size", "kid_subsets", "kid_subset_size")


def compare(paths: Sequence[Path], published: bool = True, markdown: bool = False) -> str:
    """A table of records; the published rows below them, where all are of the published Inception network.

    Two records are compared in the networks they share. Raises UserError where they share none, or differ in weights,
    in the reference or whose statistics stand for it, or in a setting that changes values.
    """
    records = [Evaluation.read(path) for path in paths]
    for first, record in combinations(records, 2):  # what two share need not be what a third has
        if difference := _difference(first, record):
            raise UserError(f"{first.path} and {record.path}: {difference}; evaluate both alike, then compare")
    rows = [row(record) for record in records]
    under = [record.extractors["inception"] for record in records if "inception" in record.extractors]
    if published and under and all(identity.get("published_weights") for identity in under):
        rows += published_rows()
    notes = []
    if len(counts := {record.samples.get("count") for record in records}) > 1:
        notes.append(f"\nsample counts differ ({', '.join(map(str, sorted(counts, key=str)))}): FID falls with them")
    return "\n".join([table(rows, markdown), *notes])


def _difference(one: Evaluation, other: Evaluation) -> str | None:
    """What keeps two evaluations from being compared, in words; None: nothing."""
    shared = [name for name in one.extractors if name in other.extractors]
    if not shared:
        return f"measured under different networks, {', '.join(one.extractors)} and {', '.join(other.extractors)}"
    for name in shared:
        if one.extractors[name] != other.extractors[name]:
            return f"measured under different weights of {name}"
    if one.reference.get("sha256") != other.reference.get("sha256"):
        return f"against different references, {one.reference.get('path')} and {other.reference.get('path')}"
    for metric in one.metrics.keys() & other.metrics.keys():
        mine, theirs = (record.details.get(metric, {}).get("statistics", {}) for record in (one, other))
        if mine.get("reference") != theirs.get("reference"):
            whose = [str(side.get("reference")).partition(" ")[0] for side in (mine, theirs)]
            return f"{metric} is against other statistics of the reference, {whose[0]} and {whose[1]}"
    for key in _SETTINGS:
        if one.settings.get(key) != other.settings.get(key):
            return f"{key} was {one.settings.get(key)} and {other.settings.get(key)}"
    return None
