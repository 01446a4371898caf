"""The one training loop, over one process or many, under every stage that trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from lwd.config import Config
from lwd.errors import UserError
from lwd.files import discard
from lwd.models import LightningDiT
from lwd.runtime.checkpoint import Checkpointable, checkpoint_path, find_checkpoints, load_checkpoint, save_checkpoint
from lwd.runtime.logging import Metric, MetricLog
from lwd.runtime.memory import keep_freed_memory
from lwd.runtime.progress import progress_bar, say
from lwd.runtime.trackers import TrackerName, Trackers
from lwd.runtime.watch import Watch, Work, gradient_norm, summary

S = TypeVar("S", bound=tuple[Any, ...])


class ComputeConfig(Config):
    """Where and how a stage runs; nothing here changes what is computed beyond rounding."""

    device: Literal["auto", "cpu"] = "auto"
    precision: Literal["no", "bf16"] = "no"
    """bf16: matrix products under autocast; weights, their updates, norms and losses stay in float32."""
    tf32: bool = False
    """Let float32 matrix products on the GPU round their inputs to TF32."""
    compile: bool | Literal["auto"] = "auto"
    """torch.compile, block by block; auto: on a GPU."""
    activation_checkpointing: bool = False
    """Keep only the blocks' inputs for the backward pass: a third more work, a fraction of the memory."""
    workers: NonNegativeInt = 0
    log_every: PositiveInt = 50
    checkpoint_every: NonNegativeInt = 1000
    """0: only where a stage asks for one, and at the end."""
    keep_checkpoints: NonNegativeInt = 2
    """How many periodic checkpoints are kept; 0: all."""
    resume: bool = True
    progress: bool = True
    trackers: tuple[TrackerName, ...] = ()
    """Where the log goes, beside trace.jsonl."""


class Task(Checkpointable, Protocol):
    """What a stage hands to the loop."""

    @property
    def module(self) -> nn.Module:
        """Everything that trains; ``module(step_batch, step)`` -> (loss, metrics), means over its samples."""

    @property
    def optimizer(self) -> Optimizer:
        """What updates it."""

    @property
    def checkpoint_steps(self) -> tuple[int, ...]:
        """Steps after which a checkpoint is kept for good, beside the periodic ones."""

    def after_step(self, step: int) -> Mapping[str, Metric]:
        """Called with the number of steps done; returns what else to log."""


class Engine:
    """This process's place among the others, its device, and the training loop."""

    def __init__(self, compute: ComputeConfig) -> None:
        self.compute = compute
        cpu = compute.device == "cpu" or not torch.cuda.is_available()
        AcceleratorState._reset_state()  # it is global, and refuses a second stage of another precision in one process
        self._accelerator = Accelerator(cpu=cpu, mixed_precision=compute.precision, step_scheduler_with_optimizer=False)
        self.device: torch.device = self._accelerator.device
        self.rank: int = self._accelerator.process_index
        self.world: int = self._accelerator.num_processes
        self.is_main: bool = self._accelerator.is_main_process
        self.dtype = torch.bfloat16 if compute.precision == "bf16" else torch.float32
        """For networks that are only evaluated, such as encoders."""
        if self.device.type == "cpu":
            keep_freed_memory()
        torch.set_float32_matmul_precision("high" if compute.tf32 else "highest")

    def place(self, model: LightningDiT) -> LightningDiT:
        """The network on this process's device, with its blocks compiled and checkpointed as configured."""
        compiles = self.device.type == "cuda" if self.compute.compile == "auto" else self.compute.compile
        model.checkpoint_blocks = self.compute.activation_checkpointing
        if compiles:
            model.compile_blocks()
        return model.to(self.device)

    def say(self, message: str) -> None:
        """One line from the main process."""
        say(message, self.is_main and self.compute.progress)

    def barrier(self) -> None:
        """Wait for all processes."""
        self._accelerator.wait_for_everyone()

    def mean(self, value: Tensor) -> Tensor:
        """Average over processes, the same on each."""
        reduced: Tensor = self._accelerator.reduce(value, reduction="mean")
        return reduced

    def fit(
        self,
        task: Task,
        batches: Dataset[S],
        *,
        steps: int,
        folder: Path,
        recipe: Mapping[str, Any],
        title: str,
        on_start: Callable[[], None] = lambda: None,
        before_step: Callable[[int], None] = lambda step: None,
        work: Work | None = None,
        at_block: Callable[[], Mapping[str, Tensor]] = dict,
    ) -> Path:
        """Train ``task`` for ``steps`` steps, logging to ``folder/trace.jsonl``.

        ``batches[step]``, a NamedTuple of tensors, Nones and such tuples, is this process's share of the step; it must
        be a pure function of the step. ``before_step(step)`` is the place to set a scheduled learning rate. ``work`` is
        what a step does, for the throughput; ``at_block()`` gives scalars for the last line of each block of the log.

        Goes on from the newest checkpoint in ``folder``; with ``compute.resume`` off it removes what is there and
        starts afresh. ``on_start`` is called on the main process once nothing stands in the way. Returns the last
        checkpoint's folder. Raises UserError where a checkpoint is of another recipe or past ``steps``.
        """
        module, optimizer = self._accelerator.prepare(task.module, task.optimizer)
        first = self._resume(task, folder, recipe, steps)
        if self.is_main:
            on_start()
        loader = self._loader(batches, range(first, steps))
        module.train()
        with (
            closing(Trackers(self.compute.trackers, folder, recipe, first, self.is_main)) as trackers,
            progress_bar(title, steps, first, self.is_main and self.compute.progress) as bar,
        ):
            log = MetricLog(folder / "trace.jsonl", self.mean, self.is_main, first, self.world, trackers.log)
            watch = Watch(log, self.device, self.mean, self.world, work, at_block)
            for step, step_batch in enumerate(watch.loading(loader), start=first):
                before_step(step)
                loss, metrics = module(self._to_device(step_batch), step)
                self._accelerator.backward(loss)
                norm = gradient_norm(module.parameters())
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                watch.add(step, {"loss": loss, "grad_norm": norm, **metrics, **task.after_step(step + 1)})
                bar(1)
                if (step + 1) % self.compute.log_every == 0 or step + 1 == steps or self._due(task, step + 1):
                    line = watch.flush()
                    bar.note(summary(line))
                    self._check_finite(line, folder)
                if self._due(task, step + 1) or step + 1 == steps:
                    self._checkpoint(task, folder, step + 1, recipe)
        return checkpoint_path(folder, steps)

    def _resume(self, task: Task, folder: Path, recipe: Mapping[str, Any], steps: int) -> int:
        found = find_checkpoints(folder)
        if not self.compute.resume:
            self.barrier()
            for path in found.values() if self.is_main else ():
                discard(path)
            return 0
        if not found:
            return 0
        if max(found) > steps:
            raise UserError(f"{folder}: holds a checkpoint of step {max(found)}, past {steps}; choose another output")
        newest = found[max(found)]
        self.say(f"resuming from {newest}")
        return load_checkpoint(newest, task, recipe)

    def _loader(self, batches: Dataset[S], steps: range) -> DataLoader[S]:
        return DataLoader(
            batches,
            batch_size=None,
            sampler=steps,
            num_workers=self.compute.workers,
            pin_memory=self.device.type == "cuda",
            persistent_workers=False,
        )

    def _to_device(self, part: S) -> S:
        """The same (nested) NamedTuple with its tensors on this process's device."""
        make: Any = type(part)
        moved: S = make(*(self._to_device(item) if isinstance(item, tuple) else self._move(item) for item in part))
        return moved

    def _move(self, item: Tensor | None) -> Tensor | None:
        return None if item is None else item.to(self.device, non_blocking=True)

    def _due(self, task: Task, step: int) -> bool:
        every = self.compute.checkpoint_every
        return step in task.checkpoint_steps or (every > 0 and step % every == 0)

    def _checkpoint(self, task: Task, folder: Path, step: int, recipe: Mapping[str, Any]) -> None:
        if self.is_main:
            save_checkpoint(folder, step, task, recipe)
            self._prune(task, folder, step)
        self.barrier()

    def _prune(self, task: Task, folder: Path, step: int) -> None:
        """Keep the last ``keep_checkpoints`` periodic ones (0: all) and those that the task wants for good."""
        keep = self.compute.keep_checkpoints
        periodic = [s for s in find_checkpoints(folder) if s not in task.checkpoint_steps and s <= step]
        for old in periodic[:-keep] if keep else []:
            discard(checkpoint_path(folder, old))

    def _check_finite(self, line: Mapping[str, Any], folder: Path) -> None:
        if line and not torch.isfinite(torch.tensor(line["loss"])):
            raise UserError(f"{folder}: the loss is {line['loss']} at step {line['step']}; lower the learning rate")
