"""Keeping a run's lock, checkpoints and log in its folder; or nothing, without a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lwd.errors import UserError
from lwd.files import discard, remove
from lwd.runtime.checkpoint import (
    Content,
    Damaged,
    Files,
    find_checkpoints,
    load_checkpoint,
    load_tensors,
)
from lwd.runtime.lock import alone_in
from lwd.runtime.preemption import stopped
from lwd.runtime.processes import Processes
from lwd.training.guard import Guard
from lwd.training.log_file import TRACE, Line
from lwd.training.power_ema import SNAPSHOTS, drop_snapshots
from lwd.training.task import Task
from lwd.training.trackers import Trackers
from lwd.training.writer import CheckpointWriter

GUARD = "guard.safetensors"


@dataclass(frozen=True)
class Guarded:
    """A task and its guard, as one thing to save and load."""

    task: Task
    guard: Guard

    def files(self) -> dict[str, Content]:
        """The contents of a checkpoint."""
        return {**self.task.files(), GUARD: self.guard.state()}

    def load(self, folder: Path) -> None:
        """Restore what `files` gave."""
        self.task.load(folder)
        if (folder / GUARD).is_file():  # checkpoints of before there was a guard have none
            self.guard.load(load_tensors(folder / GUARD))


class Keeper:
    """Keeps nothing: a run without a folder."""

    log_file: Path | None = None

    def resume(self, steps: int) -> int:
        """Restore the task; returns the number of steps done before."""
        return 0

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Open the block in which nobody else may work in the folder."""
        yield

    @contextmanager
    def keeping(self, first: int) -> Iterator[Callable[[Sequence[Line]], None]]:
        """Open the block in which steps are done; yields a function that takes lines of the log, beside the file."""
        yield lambda lines: None

    def asked_to_stop(self, step: int, last: bool) -> bool:
        """Whether the run was asked to stop after ``step`` steps."""
        return False

    def save(self, step: int, due: bool) -> None:
        """Save after ``step`` steps what the task wants kept for good and, where it is ``due``, a checkpoint."""

    def end(self, step: int) -> None:
        """Leave, having saved, since the run was asked to stop; raises Preempted."""


class FolderKeeper(Keeper):
    """Keeps checkpoints of ``guarded`` in ``folder``, each with ``recipe``."""

    def __init__(self, guarded: Guarded, folder: Path, recipe: Mapping[str, Any], processes: Processes) -> None:
        self._guarded, self._folder, self._recipe, self._processes = guarded, folder, recipe, processes
        self.log_file = folder / TRACE
        self._preemption = processes.preemption()
        self._writer = CheckpointWriter(folder, recipe)

    def resume(self, steps: int) -> int:
        """Fill the task from the newest checkpoint, remove what is no part of its run; returns the steps done."""
        folder, processes = self._folder, self._processes
        for leftover in (*folder.glob(".step-*.tmp"), *folder.glob(".step-*.old")) if processes.is_main else ():
            remove(leftover)  # of a run that was killed while it wrote
        found, first = find_checkpoints(folder), 0
        if not processes.compute.resume:
            processes.barrier()
            for path in found.values() if processes.is_main else ():
                discard(path)
        elif found:
            if max(found) > steps:
                raise UserError(
                    f"{folder}: holds a checkpoint of step {max(found)}, past {steps}; choose another output"
                )
            first = self._load([*found.values()])
        if processes.is_main:
            drop_snapshots(folder / SNAPSHOTS, first)
        return first

    def _load(self, found: Sequence[Path]) -> int:
        """Fill the task from the last of ``found``, or as ``compute.resume`` says from the last that is whole."""
        *earlier, newest = found
        self._processes.say(f"resuming from {newest}")
        try:
            return load_checkpoint(newest, self._guarded, self._recipe)
        except Damaged as error:
            if self._processes.compute.resume != "previous":
                raise
            if not earlier:
                raise UserError(
                    f"{newest}: damaged, and there is none before it; start with compute.resume=false"
                ) from error
            self._processes.say(f"{error}".partition("; remove")[0] + ", so the one before it is taken")
        step = self._load(earlier)
        self._processes.barrier()
        if self._processes.is_main:
            discard(newest)
        return step

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder's lock; raises UserError where another run has it."""
        with alone_in(self._folder) if self._processes.is_main else nullcontext():
            yield

    @contextmanager
    def keeping(self, first: int) -> Iterator[Callable[[Sequence[Line]], None]]:
        """Open the block in which signals leave a note, a thread writes checkpoints, and trackers get the log."""
        trackers = Trackers(
            self._processes.compute.trackers, self._folder, self._recipe, first, self._processes.is_main
        )
        with closing(trackers), self._preemption, self._writer:
            yield trackers.log

    def asked_to_stop(self, step: int, last: bool) -> bool:
        """Whether a signal came or the time is up, on any process."""
        return self._preemption.requested(step, last=last)

    def save(self, step: int, due: bool) -> None:
        """Copy what is to be kept and write it in a thread, on the main process; the others take part in gathering."""
        kept = self._guarded.task.snapshot(step)
        if not (kept or due):
            return
        snapshot = Files(kept) if kept else None
        files = Files(self._guarded.files()) if due else None
        if self._processes.is_main:
            self._writer.put(step, files, lambda: self._prune(step) if due else None, snapshot)
        else:
            for piece in (snapshot, files):
                if piece is not None:
                    piece.join()

    def end(self, step: int) -> None:
        """Wait for the checkpoint, then leave."""
        self._writer.wait()
        self._processes.barrier()  # an end of the others would end the process that writes
        message = f"{self._folder}: {self._preemption.why}, saved after step {step}; run it again to go on"
        raise stopped(self._preemption.signal, message)

    def _prune(self, step: int) -> None:
        """Keep the last ``keep_checkpoints`` periodic ones (0: all) and those that the task wants for good."""
        keep, wanted = self._processes.compute.keep_checkpoints, self._guarded.task.checkpoint_steps
        periodic = [path for s, path in find_checkpoints(self._folder).items() if s not in wanted and s <= step]
        for old in periodic[:-keep] if keep else []:
            discard(old)
