"""Evaluations as tables, in the column order of the papers, for a screen or as markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lwd.evaluate.record import Evaluation

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
        f"({record.reference.get('count') or 'statistics'}); wrote {record.path}"
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
    return lines


def _cell(row: Row, metric: str) -> str:
    if metric not in row.values:
        return "-"
    decimals = COLUMNS[metric][1]
    margin = f" ± {row.margins[metric]:.{decimals}f}" if metric in row.margins else ""
    return f"{row.values[metric]:.{decimals}f}{margin}"
