"""Checkpoints written behind the training loop's back, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lwd.errors import UserError
from lwd.runtime.checkpoint import Files, checkpoint_path, save_checkpoint


class CheckpointWriter:
    """Copies what a checkpoint holds, then writes it in a thread while training goes on.

    Use it as a context manager: leaving waits for what is under way. A failure is raised at the next `put` or `wait`,
    as a UserError; checkpoints that were written before stay whole.
    """

    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        self._folder, self._recipe = folder, recipe
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._last: Future[None] | None = None

    def put(self, step: int, files: Files, afterwards: Callable[[], None]) -> None:
        """Start to write the checkpoint after ``step`` steps, then call ``afterwards``. Waits for the one before."""
        self.wait()
        self._last = self._pool.submit(self._write, step, files.copied(), afterwards)

    def wait(self) -> None:
        """Until the checkpoint under way is on disk. Raises UserError where it could not be written."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def _write(self, step: int, files: Files, afterwards: Callable[[], None]) -> None:
        try:
            save_checkpoint(self._folder, step, files, self._recipe)
        except Exception as error:  # safetensors has errors of its own for a full disk
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            where = checkpoint_path(self._folder, step)
            raise UserError(f"{where}: could not be written ({reason}); the checkpoints before it are whole") from error
        afterwards()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        finally:
            self._pool.shutdown()
