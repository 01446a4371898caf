"""`lwd evaluate compare`: several evaluations in one table, refused where their numbers do not compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lwd.errors import UserError
from lwd.evaluate.published import published_rows
from lwd.evaluate.record import Evaluation
from lwd.evaluate.table import row, table

_SETTINGS = ("k", "density_k", "distances", "split_size", "kid_subsets", "kid_subset_size")


def compare(paths: Sequence[Path], published: bool = True, markdown: bool = False) -> str:
    """A table of records; the published rows below them, where all are of the published Inception network.

    Raises UserError where two differ in network, reference, or a setting that changes values.
    """
    records = [Evaluation.read(path) for path in paths]
    first = records[0]
    for record in records[1:]:
        if difference := _difference(first, record):
            raise UserError(f"{first.path} and {record.path}: {difference}; evaluate both alike, then compare")
    rows = [row(record) for record in records]
    if published and first.extractors.get("inception", {}).get("published_weights"):
        rows += published_rows()
    notes = []
    if len(counts := {record.samples.get("count") for record in records}) > 1:
        notes.append(f"\nsample counts differ ({', '.join(map(str, sorted(counts, key=str)))}): FID falls with them")
    return "\n".join([table(rows, markdown), *notes])


def _difference(one: Evaluation, other: Evaluation) -> str | None:
    """What keeps two evaluations from being compared, in words; None: nothing."""
    if one.extractors.keys() != other.extractors.keys():
        return f"measured under different networks, {', '.join(one.extractors)} and {', '.join(other.extractors)}"
    for name, identity in one.extractors.items():
        if identity != other.extractors[name]:
            return f"measured under different weights of {name}"
    if one.reference.get("sha256") != other.reference.get("sha256"):
        return f"against different references, {one.reference.get('path')} and {other.reference.get('path')}"
    for key in _SETTINGS:
        if one.settings.get(key) != other.settings.get(key):
            return f"{key} was {one.settings.get(key)} and {other.settings.get(key)}"
    return None
