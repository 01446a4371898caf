"""The config by which the folder of a released model is sampled from, wherever it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lwd.config import SETTINGS, as_folder_name, read_yaml
from lwd.encoders.decoder import CARRIED
from lwd.errors import UserError

KEYS = ("groups", "leader", "model")


def released(folder: Path) -> dict[str, Any]:
    """Plain data for `lwd.config.load`: what config.yaml in a folder of `lwd export` says, and where its parts lie.

    Results go to runs/NAME/samples/NAME of the current folder, with the folder's name, or one near it. Raises UserError
    for another folder, and for one that sets more, as ``imports``: a folder alone never decides what code is run.
    """
    file, carried = folder / SETTINGS, folder / CARRIED
    if not (file.is_file() and carried.is_dir()):
        raise UserError(
            f"{folder}: not a folder of `lwd export` that carries a decoder; give a YAML file, and "
            f"sample.checkpoint={folder}"
        )
    settings = read_yaml(file)
    model = settings.get("model")
    if set(settings) != set(KEYS) or not isinstance(model, dict) or set(model) != {"num_classes"}:
        raise UserError(f"{file}: not as `lwd export` writes it, with {', '.join(KEYS)}.num_classes and no more")
    name = as_folder_name((folder.resolve() if folder.name in ("", "..") else folder).name)
    where = {"output": str(Path("runs") / name), "data": {"path": str(carried)}}
    return settings | where | {"sample": {"checkpoint": str(folder), "name": name}}
