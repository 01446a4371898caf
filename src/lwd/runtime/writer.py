"""Checkpoints written behind the training loop's back, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lwd.errors import UserError
from lwd.runtime.background import Background
from lwd.runtime.checkpoint import Files, checkpoint_path, save_checkpoint


class CheckpointWriter(Background):
    """Copies what a checkpoint holds, then writes it in a thread while training goes on.

    What goes wrong is raised as a UserError; checkpoints that were written before stay whole.
    """

    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        super().__init__("checkpoint", lowly=True)
        self._folder, self._recipe = folder, recipe

    def put(self, step: int, files: Files, afterwards: Callable[[], None]) -> None:
        """Start to write the checkpoint after ``step`` steps, then call ``afterwards``. Waits for the one before."""
        self.wait()  # before the copy, so that there is one copy at most
        self.start(self._write, step, files.copied(), afterwards)

    def _write(self, step: int, files: Files, afterwards: Callable[[], None]) -> None:
        try:
            save_checkpoint(self._folder, step, files, self._recipe)
        except Exception as error:  # safetensors has errors of its own for a full disk
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            where = checkpoint_path(self._folder, step)
            raise UserError(f"{where}: could not be written ({reason}); the checkpoints before it are whole") from error
        afterwards()
