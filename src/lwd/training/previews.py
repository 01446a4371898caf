"""Pictures that a run draws of itself: where they lie, and that none of them ends it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lwd.console import complain
from lwd.errors import UserError
from lwd.runtime.checkpoint import find_checkpoints

LONGEST = 200
"""Characters of a cause that is somebody else's: some run over many lines."""


class Pictures:
    """``RUN/previews/step-*.png``, each named after the number of steps done."""

    def __init__(self, run: Path) -> None:
        self._run, self._folder = run, run / "previews"
        self._said: set[str] = set()

    def file(self, step: int) -> Path:
        """The picture after ``step`` steps."""
        return self._folder / f"step-{step:08d}.png"

    def found(self) -> dict[int, Path]:
        """The pictures that are there, by step."""
        names = ((re.fullmatch(r"step-(\d+)\.png", file.name), file) for file in self._folder.glob("step-*.png"))
        return {int(match[1]): file for match, file in names if match}

    def check(self) -> None:
        """Make the folder; raises UserError where no picture could be written there."""
        if self._folder.exists() and not self._folder.is_dir():
            raise UserError(f"{self._folder}: is no folder, where pictures are to go; move it away")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder):
                pass
        except OSError as error:
            why = error.strerror or error
            raise UserError(
                f"{self._folder}: no picture can be written there ({why}); mend that, or draw none"
            ) from error

    def start(self) -> None:
        """Remove pictures of steps that are yet to be done: they are of a run that was killed, or of another one.

        On the main process, once the checkpoints in the run's folder are those that it goes on from.
        """
        first = max(find_checkpoints(self._run), default=0)
        for step, file in self.found().items():
            if step > first:
                with self.attempt(step, "an earlier run's, cannot be removed"):
                    file.unlink()

    @contextmanager
    def attempt(self, step: int, failure: str = "no picture") -> Iterator[None]:
        """Open the block that makes the picture of ``step``: what goes wrong there does not end the run.

        One line on stderr names the ``failure`` and its cause, each failure the first time only.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, weeks of training are worth more
            if failure not in self._said:
                file = self.file(step)
                cause = reason(error).removeprefix(f"{file}: ")
                complain(f"{file}: {failure} ({cause}); the run goes on, and says this only once")
            self._said.add(failure)


def reason(error: Exception) -> str:
    """An error's cause in one line."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:LONGEST]
