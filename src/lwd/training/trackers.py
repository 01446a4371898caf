"""Experiment trackers (TensorBoard, W&B, trackio) through Accelerate's classes: the log's lines, and the pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, filter_trackers
from PIL import Image

from lwd.errors import UserError
from lwd.runtime.compute import TrackerName
from lwd.training.previews import Pictures

PROJECT = "lwd"
"""W&B's and trackio's project; a run in it has the name of its folder."""

PICTURE = "preview"
"""What a run's pictures are called there."""


class Trackers:
    """The trackers of one run; none for an empty ``names``. Only the main process has any.

    TensorBoard's files go to ``folder/tensorboard``, where what an earlier run wrote from ``first_step`` on is hidden.
    Raises UserError for a tracker whose package is missing.
    """

    def __init__(
        self, names: Sequence[TrackerName], folder: Path, recipe: Mapping[str, Any], first_step: int, main: bool
    ) -> None:
        for name in names:
            if not filter_trackers([name], folder):
                raise UserError(f"compute.trackers: {name} is not installed; `pip install {name}`, or leave it out")
        self._pictures = Pictures(folder)
        self._trackers = [_open(name, folder, first_step) for name in dict.fromkeys(names) if main]
        for tracker in self._trackers:
            tracker.store_init_configuration(dict(_settings(recipe)))

    def log(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Log the lines of a block, step by step; a vector's entries are ``name/0``, ``name/1``, ...

        The picture drawn at the end of a step goes with its line: W&B takes no step before the one it has, and a run
        resumed behind the step does not draw it again, so TensorBoard must not hide it.
        """
        pictures = self._pictures.found() if self._trackers else {}
        for line in lines:
            values, done = dict(_scalars(line)), line["step"] + 1
            for tracker in self._trackers:
                if done in pictures:
                    with self._pictures.attempt(done, f"not shown in {tracker.name}"):
                        _show(tracker, pictures[done], line["step"])
                tracker.log(values, step=line["step"])

    def close(self) -> None:
        """Write what the trackers still hold."""
        for tracker in self._trackers:
            tracker.finish()


def _open(name: TrackerName, folder: Path, first_step: int) -> Any:
    kind = LOGGER_TYPE_TO_CLASS[name]
    if name == "tensorboard":
        tracker = kind("tensorboard", logging_dir=folder, purge_step=first_step)
    elif name == "wandb":
        tracker = kind(PROJECT, name=folder.name, dir=str(folder))
    else:
        tracker = kind(PROJECT, name=folder.name)
    tracker.start()
    return tracker


def _show(tracker: Any, file: Path, step: int) -> None:
    """Hand a picture over as uint8 RGB, (height, width, 3). Accelerate has no call for trackio's."""
    with Image.open(file) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    if tracker.name == "tensorboard":
        tracker.log_images({PICTURE: pixels[None]}, step=step, dataformats="NHWC")
    elif tracker.name == "wandb":
        tracker.log_images({PICTURE: [pixels]}, step=step)
    else:
        tracker.log({PICTURE: import_module("trackio").Image(pixels)}, step=step)


def _scalars(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The finite numbers of a line, but for its step."""
    for key, value in line.items():
        entries = {f"{key}/{i}": entry for i, entry in enumerate(value)} if isinstance(value, list) else {key: value}
        yield from ((k, v) for k, v in entries.items() if k != "step" and v is not None and math.isfinite(v))


def _settings(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """A nested recipe as flat keys, ``train/lr``; what is no scalar as text."""
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value if isinstance(value, bool | int | float | str) else str(value)
