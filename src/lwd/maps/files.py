"""A map's files: map.safetensors with what was measured of each image, and map.json that says of what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lwd.errors import UserError
from lwd.files import atomic_path, read_json, write_json
from lwd.groups import Layout
from lwd.maps.table import LogSNR, Map
from lwd.runtime.checkpoint import first_difference, load_tensors, save_tensors

Split = Literal["heldout", "train"]
SPLITS: tuple[Split, ...] = ("heldout", "train")
FORMAT, TENSORS, FACTS = "lwd.map/1", "map.safetensors", "map.json"


def write_maps(folder: Path, maps: Mapping[Split, Map], facts: Mapping[str, Any]) -> None:
    """Write the maps of the splits, on one grid, and ``facts`` about them; map.json comes last."""
    tensors = {
        f"{split}.{key}": tensor
        for split, one in maps.items()
        for key, tensor in (("loss", one.loss), ("speed", one.speed))
    }
    with atomic_path(folder / TENSORS) as temporary:
        save_tensors(temporary, tensors)
    one = next(iter(maps.values()))
    about = {
        "format": FORMAT,
        "layout": one.layout.to_list(),
        "leader": one.leader,
        "points": one.grid.points,
        "largest": one.grid.largest,
        "images": {split: found.images for split, found in maps.items()},
    }
    write_json(folder / FACTS, {**about, **facts})


def read_map(folder: Path, split: Split = "heldout", wanted: Mapping[str, Any] | None = None) -> Map:
    """Read one split's map.

    ``wanted``: what map.json must say of it, such as its data or weights; what an older one does not say counts as so.
    Raises UserError where there is no finished map, its tensors are not what it says, or it is not the ``wanted`` one.
    """
    if not (folder / FACTS).is_file():
        raise UserError(f"{folder}: no map here; train a network with train.times=independent, then run lwd map")
    facts, tensors = read_json(folder / FACTS), load_tensors(folder / TENSORS)
    try:
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']!r}")
        layout, leader = Layout(facts["layout"]), facts["leader"]
        found = Map(
            layout,
            leader,
            LogSNR(facts["points"], facts["largest"]),
            tensors[f"{split}.loss"],
            tensors[f"{split}.speed"],
        )
        groups, points = len(layout.names), found.grid.points
        shape = (groups - 1, found.images, points, points, groups)
        if found.loss.shape != shape or found.speed.shape != shape or leader not in layout.names:
            raise ValueError(f"{split} tensors are {tuple(found.loss.shape)}, not {shape}")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / FACTS}: not a map, or not that of {TENSORS} beside it ({error})") from error
    said = {key: facts.get(key, value) for key, value in (wanted or {}).items()}
    if changed := first_difference(said, wanted or {}):
        raise UserError(f"{folder}: a map of something else: {changed}; run lwd map with compute.resume=false")
    return found
