"""The one training loop, over one process or many, under every stage that trains."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import AutocastKwargs
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lwd.errors import Preempted, UserError
from lwd.files import discard
from lwd.models import LightningDiT
from lwd.runtime.checkpoint import (
    Content,
    Files,
    checkpoint_path,
    find_checkpoints,
    load_checkpoint,
    load_tensors,
)
from lwd.runtime.compute import ComputeConfig
from lwd.runtime.lock import alone_in
from lwd.runtime.memory import keep_freed_memory
from lwd.runtime.preemption import Preemption, ignore_signals
from lwd.runtime.progress import progress_bar, say
from lwd.runtime.sharding import prepare, shard, undivided
from lwd.training.guard import Guard, check_skipped
from lwd.training.loading import each, read_ahead, rows, samples
from lwd.training.logging import Metric, MetricLog, add_share
from lwd.training.meter import Watch, Work, summary
from lwd.training.power_ema import SNAPSHOTS, drop_snapshots
from lwd.training.task import Task
from lwd.training.trackers import Trackers
from lwd.training.writer import CheckpointWriter

S = TypeVar("S", bound=tuple[Any, ...])
S_co = TypeVar("S_co", bound=tuple[Any, ...], covariant=True)

GUARD = "guard.safetensors"


class StepData(Protocol[S_co]):
    """What each step is made of, for this process; pure functions of the step."""

    def __getitem__(self, step: int) -> S_co:
        """A NamedTuple of tensors, Nones and such tuples, samples first."""

    def images(self, step: int) -> Tensor:
        """Which images of the data make the whole step, over all processes: (batch,) int64."""


class Engine:
    """This process's place among the others, its device, and the training loop."""

    def __init__(self, compute: ComputeConfig) -> None:
        self.compute = compute
        cpu = compute.device == "cpu" or not torch.cuda.is_available()
        AcceleratorState._reset_state()  # it is global, and refuses a second stage of another precision in one process
        # Autocast's cache would keep a bf16 copy of weights that sharding has freed, and each is used but once anyway.
        autocast = [AutocastKwargs(cache_enabled=False)] if compute.shard else []
        self._accelerator = Accelerator(
            cpu=cpu, mixed_precision=compute.precision, step_scheduler_with_optimizer=False, kwargs_handlers=autocast
        )
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

    def shard(self, *models: LightningDiT) -> None:
        """Divide each among the processes if ``compute.shard`` says so; after `place`, copies, before an optimiser."""
        if self.compute.shard and self.world > 1:
            for model in models:
                shard(model, model.blocks, self.device)

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which networks compute in ``compute.precision``."""
        return cast(AbstractContextManager[object], self._accelerator.autocast())

    def say(self, message: str) -> None:
        """One line, from the main process."""
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
        batches: StepData[S],
        *,
        steps: int,
        folder: Path,
        recipe: Mapping[str, Any],
        title: str,
        on_start: Callable[[], None] = lambda: None,
        work: Work | None = None,
    ) -> Path:
        """Train ``task`` for ``steps`` steps, logging to ``folder/trace.jsonl``.

        ``batches[step]`` is this process's share of the step; ``work`` is what a step does, for the throughput.

        Goes on from the newest checkpoint in ``folder``; with ``compute.resume`` off it removes what is there and
        starts afresh. ``on_start`` is called on the main process once nothing stands in the way. Returns the last
        checkpoint's folder. Raises UserError where a checkpoint is of another recipe or past ``steps``, too many steps
        in a row were skipped (`Guard`), or another run is in ``folder``; Preempted, having saved, if asked to stop.
        """
        module, optimizer = prepare(self._accelerator, task.module, task.optimizer)
        alone = undivided(task.module)
        guard = Guard(task.module.parameters(), task.optimizer, self.compute.clip_norm, self.compute.spike)
        guarded = _Guarded(task, guard)
        with alone_in(folder) if self.is_main else nullcontext():
            first = self._resume(guarded, folder, recipe, steps)
            if self.is_main:
                on_start()
            loader = self._load(batches, range(first, steps))
            module.train()
            with (
                closing(Trackers(self.compute.trackers, folder, recipe, first, self.is_main)) as trackers,
                Preemption(self.mean if self.world > 1 else None, self.device) as preemption,
                CheckpointWriter(folder, recipe) as writer,
                progress_bar(title, steps, first, self.is_main and self.compute.progress) as bar,
            ):
                log = MetricLog(folder / "trace.jsonl", self.mean, self.is_main, first, self.world, trackers.log)
                watch = Watch(log, self.device, self.mean, self.world, work, task.at_block)
                for step, step_batch in enumerate(watch.loading(loader), start=first):
                    task.before_step(step)
                    metrics = self._gradients(module, alone, self._to_device(step_batch), step) | guard.inspect()
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                    watch.add(step, {**metrics, **task.after_step(step + 1)})
                    bar(1)
                    stopping = preemption.requested(step + 1, last=step + 1 == steps)
                    due = self._due(task, step + 1) or step + 1 == steps or stopping
                    if due or (step + 1) % self.compute.log_every == 0:
                        bar.note(summary(watch.flush()))
                        check_skipped(guard, self.compute.skip_limit, folder, batches.images, first, self.is_main)
                    if (kept := task.snapshot(step + 1)) or due:
                        self._checkpoint(writer, guarded if due else None, kept, folder, step + 1)
                    if stopping:
                        writer.wait()
                        self.barrier()  # an end of the others would end the process that writes
                        raise Preempted(f"{folder}: asked to stop, saved after step {step + 1}; run it again to go on")
            self.barrier()
        return checkpoint_path(folder, steps)

    def _gradients(self, module: nn.Module, alone: Iterable[nn.Parameter], batch: S, step: int) -> dict[str, Metric]:
        """Gradients of the step's mean loss over micro-batches and processes; the metrics' means.

        ``alone``: the parameters whose gradients nobody else averages over processes (`undivided`).
        """
        count = samples(batch)
        size = self.compute.micro_batch or count
        totals: dict[str, Metric] = {}
        for start in range(0, count, size):
            part = batch if size >= count else rows(batch, slice(start, start + size))
            share = samples(part) / count
            last = start + size >= count
            with nullcontext() if last else self._accelerator.no_sync(module):
                loss, metrics = module(part, step)
                self._accelerator.backward(loss if share == 1 else loss * share)
            for name, value in {"loss": loss, **metrics}.items():
                totals[name] = add_share(totals.get(name), value, share)
        for parameter in alone:
            parameter.grad = None if parameter.grad is None else self.mean(parameter.grad)
        return totals

    def _resume(self, task: _Guarded, folder: Path, recipe: Mapping[str, Any], steps: int) -> int:
        """Fill the task from the newest checkpoint, remove what is no part of its run; returns the steps done."""
        for leftover in (*folder.glob(".step-*.tmp"), *folder.glob(".step-*.old")) if self.is_main else ():
            shutil.rmtree(leftover)  # of a run that was killed while it wrote
        found, first = find_checkpoints(folder), 0
        if not self.compute.resume:
            self.barrier()
            for path in found.values() if self.is_main else ():
                discard(path)
        elif found:
            if max(found) > steps:
                raise UserError(
                    f"{folder}: holds a checkpoint of step {max(found)}, past {steps}; choose another output"
                )
            newest = found[max(found)]
            self.say(f"resuming from {newest}")
            first = load_checkpoint(newest, task, recipe)
        if self.is_main:
            drop_snapshots(folder / SNAPSHOTS, first)
        return first

    def _load(self, batches: StepData[S], steps: range) -> Iterable[S]:
        """The steps' data, read ahead: by worker processes if ``compute.workers`` asks for them, else by a thread."""
        pin = self.device.type == "cuda"
        if not self.compute.workers:
            return read_ahead(lambda step: each(batches[step], Tensor.pin_memory) if pin else batches[step], steps)
        dataset = cast(Dataset[S], batches)
        return DataLoader(
            dataset,
            batch_size=None,
            sampler=steps,
            num_workers=self.compute.workers,
            pin_memory=pin,
            worker_init_fn=ignore_signals,
        )

    def _to_device(self, batch: S) -> S:
        return each(batch, lambda tensor: tensor.to(self.device, non_blocking=True))

    def _due(self, task: Task, step: int) -> bool:
        every = self.compute.checkpoint_every
        return step in task.checkpoint_steps or (every > 0 and step % every == 0)

    def _checkpoint(
        self, writer: CheckpointWriter, guarded: _Guarded | None, kept: Mapping[str, Content], folder: Path, step: int
    ) -> None:
        snapshot = Files(kept) if kept else None
        files = None if guarded is None else Files(guarded.files())
        if self.is_main:
            task = None if guarded is None else guarded.task
            writer.put(step, files, lambda: self._prune(task, folder, step), snapshot)
        else:
            for piece in (snapshot, files):
                if piece is not None:
                    piece.join()

    def _prune(self, task: Task | None, folder: Path, step: int) -> None:
        """Keep the last ``keep_checkpoints`` periodic ones (0: all) and those that the task wants for good."""
        if task is None:
            return
        keep = self.compute.keep_checkpoints
        periodic = [s for s in find_checkpoints(folder) if s not in task.checkpoint_steps and s <= step]
        for old in periodic[:-keep] if keep else []:
            discard(checkpoint_path(folder, old))


@dataclass(frozen=True)
class _Guarded:
    """A task and its guard, as one thing to save and load."""

    task: Task
    guard: Guard

    def files(self) -> dict[str, Content]:
        return {**self.task.files(), GUARD: self.guard.state()}

    def load(self, folder: Path) -> None:
        self.task.load(folder)
        if (folder / GUARD).is_file():  # checkpoints of before there was a guard have none
            self.guard.load(load_tensors(folder / GUARD))
