"""`lwd evaluate compare`: several evaluations in one table, refused where their numbers do not compare."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from lwd.errors import UserError
from lwd.evaluate.published import published_rows
from lwd.evaluate.record import Evaluation
from lwd.evaluate.table import row, table

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
