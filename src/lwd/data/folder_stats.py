"""`lwd data stats`: the statistics that a data set's shards lack, as `lwd encode` leaves them."""

from __future__ import annotations

from pathlib import Path

from lwd.data.format import FEATURES, FLIP, LABELS, infer_layout, is_shard, open_shard, shard_files
from lwd.data.stats import stats_path
from lwd.data.writing import write_stats
from lwd.errors import UserError
from lwd.files import copy_file
from lwd.groups import Group, Layout
from lwd.images.walk import files_in, folders_in

TRAIN = "train"


def complete(path: Path) -> list[Path]:
    """Write what is missing of the statistics of a data set folder or a folder of shards; returns the new files.

    In a data set all folders get those of ``train``, by which a model's latents are standardised; without one, and in
    a folder of shards, each gets its own. What is there is left as it is. Raises UserError where there are no shards,
    or no latents in them, and for a value that is not finite.
    """
    inside = [path / name for name in folders_in(path) if files_in(path / name, is_shard)]
    if not inside:
        shard_files(path)
    made: list[Path] = []
    for folder in sorted(inside, key=lambda f: (f.name != TRAIN, f.name)) or [path]:
        source = path / TRAIN
        made += _complete(folder, source if folder != source and source in inside else None)
    return made


def _complete(folder: Path, source: Path | None) -> list[Path]:
    """One folder's files, copied from those of ``source`` where there is one."""
    layout = _layout(folder)
    missing = [group for group in layout.groups if not stats_path(folder, group.name).exists()]
    paths = [stats_path(folder, group.name) for group in missing]
    if source is not None:
        for path in paths:
            copy_file(source / path.name, path)
    elif missing:
        write_stats(folder, Layout(missing))
    return paths


def _layout(folder: Path) -> Layout:
    """A group for each key of latents; where no key is called so, for each that could be one."""
    shards = [open_shard(file) for file in shard_files(folder)]
    if (layout := infer_layout(shards)) is not None:
        return layout
    others = {
        key: tensor.shape[1]
        for shard in shards
        for key, tensor in shard.items()
        if tensor.ndim > 1 and tensor.is_floating_point() and key not in (FEATURES, LABELS) and not key.endswith(FLIP)
    }
    if not others:
        raise UserError(f"{folder}: the shards hold no latents (N, C, ...)")
    return Layout(Group(key, channels, key=key) for key, channels in sorted(others.items()))
