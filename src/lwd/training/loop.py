"""The one training loop, over one process or many, under every stage that trains and `lwd.probe.learn`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from accelerate.utils import find_batch_size, recursively_apply, send_to_device, slice_tensors
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lwd.runtime.preemption import ignore_signals
from lwd.runtime.processes import Processes
from lwd.runtime.progress import progress_bar
from lwd.runtime.sharding import undivided
from lwd.training.guard import Guard, check_skipped
from lwd.training.keeper import FolderKeeper, Guarded, Keeper
from lwd.training.loading import read_ahead
from lwd.training.logging import Metric, MetricLog, add_share
from lwd.training.meter import Meter, Work, summary
from lwd.training.task import Task

B = TypeVar("B")
B_co = TypeVar("B_co", covariant=True)


class StepData(Protocol[B_co]):
    """This process's batch of each step, and the images in it: pure functions of the step."""

    def __getitem__(self, step: int) -> B_co:
        """Tensors in (nested) tuples and mappings, samples first, Nones among them."""

    def images(self, step: int) -> Tensor | None:
        """The images of the data that make the whole step, over all processes: (batch,) int64; None: not known."""


def fit(
    processes: Processes,
    task: Task,
    batches: StepData[B],
    *,
    steps: int,
    folder: str | Path | None = None,
    recipe: Mapping[str, Any] | None = None,
    title: str,
    on_start: Callable[[], None] = lambda: None,
    work: Work | None = None,
) -> int:
    """Train ``task`` for ``steps`` steps, or until `Task.stop_after` says so; returns the number of steps done.

    ``batches[step]`` is this process's share of the step; ``work`` is what a step does, for the throughput.

    With a ``folder`` it logs to ``folder/trace.jsonl`` and goes on from the newest checkpoint there; with
    ``compute.resume`` off it removes what is there and starts afresh. ``on_start`` is called on the main process once
    nothing stands in the way. Raises UserError where a checkpoint is of another recipe or past ``steps``, too many
    steps in a row were skipped (`Guard`), or another run is in ``folder``; Preempted, having saved, if asked to stop or
    at ``compute.time_limit``.
    """
    folder = None if folder is None else Path(folder)
    compute = processes.compute
    module, _ = processes.prepare(task.module, task.optimizer)
    alone = undivided(task.module)
    guard = Guard(task.module.parameters(), task.optimizer, compute.clip_norm, compute.spike)
    keeper = Keeper() if folder is None else FolderKeeper(Guarded(task, guard), folder, recipe or {}, processes)
    with keeper.alone():
        first = keeper.resume(steps)
        if processes.is_main:
            on_start()
        done = first
        ended = done == steps or (done > 0 and task.stop_after(done))
        module.train()
        with keeper.keeping(first) as sink, progress_bar(title, steps, first, processes.shows) as bar:
            log = MetricLog(keeper.log_file, processes.mean, processes.is_main, first, processes.world, sink)
            meter = Meter(log, processes.device, processes.mean, processes.world, work, task.at_block)
            for step_batch in meter.loading(_load(processes, batches, range(first, steps) if not ended else range(0))):
                task.before_step(done)
                batch = send_to_device(step_batch, processes.device, non_blocking=True)
                metrics = _gradients(processes, module, alone, batch, done) | guard.inspect()
                guard.step()
                task.optimizer.zero_grad(set_to_none=True)
                done += 1
                meter.add(done - 1, {**metrics, **task.after_step(done)})
                bar(1)
                ended = done == steps or task.stop_after(done)
                stopping = keeper.asked_to_stop(done, last=ended)
                due = ended or stopping or _due(processes, task, done)
                if due or done % compute.log_every == 0:
                    bar.note(summary(meter.flush()))
                    check_skipped(guard, compute.skip_limit, folder, batches.images, first, processes.is_main)
                keeper.save(done, due)
                if stopping:
                    keeper.end(done)
                if ended:
                    break
            bar(steps - done)
        processes.barrier()
    return done


def _gradients(
    processes: Processes, module: nn.Module, alone: Iterable[nn.Parameter], batch: Any, step: int
) -> dict[str, Metric]:
    """Compute gradients of the step's mean loss over micro-batches and processes; the metrics' means.

    ``alone``: the parameters whose gradients nobody else averages over processes (`undivided`).
    """
    count = cast(int, find_batch_size(batch))
    size = processes.compute.micro_batch or count
    totals: dict[str, Metric] = {}
    for start in range(0, count, size):
        part = batch if size >= count else slice_tensors(batch, slice(start, start + size))
        share = min(size, count - start) / count
        if start + size >= count:
            loss, metrics = module(part, step)
            processes.backward(loss if share == 1 else loss * share)
        else:
            with processes.no_sync(module):
                loss, metrics = module(part, step)
                processes.backward(loss * share)
        for name, value in {"loss": loss, **metrics}.items():
            totals[name] = add_share(totals.get(name), value, share)
    for parameter in alone:
        parameter.grad = None if parameter.grad is None else processes.mean(parameter.grad)
    return totals


def _load(processes: Processes, batches: StepData[B], steps: range) -> Iterable[B]:
    """Yield the steps' data, read ahead: by worker processes if ``compute.workers`` asks for them, else by a thread."""
    pin = processes.device.type == "cuda"
    if not processes.compute.workers:
        if pin:
            return read_ahead(lambda step: cast(B, recursively_apply(Tensor.pin_memory, batches[step])), steps)
        return read_ahead(batches.__getitem__, steps)
    dataset = cast(Dataset[B], batches)
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=steps,
        num_workers=processes.compute.workers,
        pin_memory=pin,
        worker_init_fn=ignore_signals,
    )


def _due(processes: Processes, task: Task, step: int) -> bool:
    every = processes.compute.checkpoint_every
    return step in task.checkpoint_steps or (every > 0 and step % every == 0)
