"""A map's files: map.safetensors with what was measured of each image, and map.json that says of what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor

from lwd.errors import UserError
from lwd.files import atomic_path, write_json
from lwd.groups import Layout
from lwd.maps.table import LogSNR, Map
from lwd.records import Record, read_record
from lwd.runtime.checkpoint import first_difference, load_tensors, save_tensors

Split = Literal["heldout", "train"]
SPLITS: tuple[Split, ...] = ("heldout", "train")
FORMAT, TENSORS, FACTS = "lwd.map/1", "map.safetensors", "map.json"
RECIPE, PARTS = "mapping.json", "parts"
"""While it is measured: by what settings, and the folder of finished blocks."""


class MapFile(Record):
    """The content of map.json, as far as it says of what the tensors are."""

    what: ClassVar[str] = "the description of a map"
    remedy: ClassVar[str] = "run `lwd map` again"

    format: Literal["lwd.map/1"]
    layout: list[dict[str, Any]]
    leader: str
    points: int
    largest: float
    positions: int

    def of(self, tensors: Mapping[str, Tensor], split: Split) -> Map:
        """One split's map. Raises KeyError, IndexError, TypeError or ValueError for tensors that are not its."""
        layout = Layout(self.layout)
        grid = LogSNR(self.points, self.largest)
        found = Map(layout, self.leader, grid, self.positions, tensors[f"{split}.loss"], tensors[f"{split}.speed"])
        groups = len(layout.names)
        shape = (groups - 1, found.images, grid.points, grid.points, groups)
        if found.loss.shape != shape or found.speed.shape != shape or self.leader not in layout.names:
            raise ValueError(f"{split} tensors are {tuple(found.loss.shape)}, not {shape}")
        return found


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
        "positions": one.positions,
        "images": {split: found.images for split, found in maps.items()},
    }
    write_json(folder / FACTS, {**about, **facts})


def read_maps(folder: str | Path, wanted: Mapping[str, Any] | None = None) -> dict[Split, Map]:
    """Read the maps of all splits.

    ``wanted``: what map.json must say of them, such as its data or weights; what an older one does not say counts as
    so. Raises UserError where there is no finished map, its tensors are not what it says, or it is not the ``wanted``.
    """
    folder = Path(folder)
    if not (folder / FACTS).is_file():
        raise UserError(f"{folder}: no map here; train a network with train.times=independent, then run lwd map")
    facts, tensors = read_record(folder / FACTS, MapFile), load_tensors(folder / TENSORS)
    try:
        maps = {split: facts.of(tensors, split) for split in SPLITS}
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / FACTS}: not a map, or not that of {TENSORS} beside it ({error})") from error
    given = facts.model_dump(mode="json")
    said = {key: given.get(key, value) for key, value in (wanted or {}).items()}
    if changed := first_difference(said, wanted or {}):
        raise UserError(f"{folder}: a map of something else: {changed}; run lwd map with compute.resume=false")
    return maps
