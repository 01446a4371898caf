"""Writing checkpoints in a thread while training goes on, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lwd.errors import UserError
from lwd.runtime.background import Background
from lwd.runtime.checkpoint import Files, checkpoint_path, save_checkpoint
from lwd.training.power_ema import SNAPSHOTS


class CheckpointWriter(Background):
    """Copies what a checkpoint holds, then writes it in a thread while training goes on.

    What goes wrong is raised as a UserError; checkpoints that were written before stay whole.
    """

    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        super().__init__("checkpoint", lowly=True)
        self._folder, self._recipe = folder, recipe

    def put(
        self, step: int, files: Files | None, afterwards: Callable[[], None], snapshot: Files | None = None
    ) -> None:
        """Start to write the checkpoint after ``step`` steps, then call ``afterwards``. Waits for the one before.

        A ``snapshot`` is written first, so that no run resumed from this checkpoint or a later one lacks it.
        """
        self.wait()  # before the copy, so that there is one copy at most
        pieces = {self._folder / SNAPSHOTS: snapshot, self._folder: files}
        self.start(self._write, step, {where: piece.copied() for where, piece in pieces.items() if piece}, afterwards)

    def _write(self, step: int, pieces: Mapping[Path, Files], afterwards: Callable[[], None]) -> None:
        for folder, files in pieces.items():
            try:
                save_checkpoint(folder, step, files, self._recipe)
            except Exception as error:  # safetensors has errors of its own for a full disk
                reason = getattr(error, "strerror", None) or " ".join(str(error).split())
                where = checkpoint_path(folder, step)
                raise UserError(
                    f"{where}: could not be written ({reason}); the checkpoints before it are whole"
                ) from error
        afterwards()
