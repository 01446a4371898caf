"""Measuring a run: its speed, its wait for data, its memory, the size of its gradients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import psutil
import torch
from torch import Tensor

from lwd.flow import losses_by_time
from lwd.groups import Layout
from lwd.training.logging import Line, Metric, MetricLog, Pooled, Reduce

S = TypeVar("S")

GIB = 2**30


@dataclass(frozen=True)
class Work:
    """The work of one step, over all processes."""

    images: int
    flops: int = 0
    """Operations of one image's training step (`lwd.models.training_flops`); 0: not counted."""


class Meter:
    """Adds to each block of a log how the machine did, averaged over processes; see `measure` for the keys.

    A block lasts from the end of the one before, the first one from the first batch asked for. ``at_block`` gives what
    else belongs in its last line. Nothing here makes a step wait for the device, only a block's end does.
    """

    def __init__(
        self,
        log: MetricLog,
        device: torch.device,
        reduce: Reduce,
        processes: int = 1,
        work: Work | None = None,
        at_block: Callable[[], Mapping[str, Tensor]] = dict,
    ) -> None:
        self._log, self._device, self._reduce = log, device, reduce
        self._processes, self._work, self._at_block = processes, work, at_block
        self._since: float | None = None
        self._waited_s, self._steps = 0.0, 0

    def loading(self, batches: Iterable[S]) -> Iterator[S]:
        """Pass the batches on, and measure the time spent waiting for each."""
        started = time.perf_counter()
        self._since = started if self._since is None else self._since
        for batch in batches:
            self._waited_s += time.perf_counter() - started
            yield batch
            started = time.perf_counter()

    def add(self, step: int, metrics: Mapping[str, Metric]) -> None:
        """Remember the metrics of one step."""
        self._log.add(step, metrics)
        self._steps += 1

    def flush(self) -> Line:
        """Write the block; returns its last line. Every process must call it at the same steps."""
        measured = self.measure()
        self._since, self._waited_s, self._steps = time.perf_counter(), 0.0, 0
        return self._log.flush(measured)

    def measure(self) -> dict[str, float]:
        """Measure the block so far, by the wall clock, whatever the time went on.

        ``images_per_s`` of all processes; ``tflops``, TFLOP/s of one process; ``data_wait``, the share of the time
        spent waiting for data; ``memory_gib``, of one process: the peak of what tensors took on the GPU, or what is
        resident on the CPU; and what ``at_block`` gives.
        """
        if not self._steps or self._since is None:
            return {}
        extra = {key: value.detach().float() for key, value in self._at_block().items()}
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        seconds = time.perf_counter() - self._since
        values = {"data_wait": self._waited_s / seconds, "memory_gib": memory_bytes(self._device) / GIB}
        if self._work is not None:
            values["images_per_s"] = self._work.images * self._steps / seconds
            if self._work.flops:
                values["tflops"] = values["images_per_s"] * self._work.flops / self._processes / 1e12
        here = torch.tensor(list(values.values()), device=self._device)
        numbers = self._reduce(torch.cat([here, *(value.reshape(1) for value in extra.values())])).tolist()
        return dict(zip([*values, *extra], numbers, strict=True))


@torch.no_grad()
def by_local_time(losses: Tensor, times: Tensor, layout: Layout) -> dict[str, Pooled]:
    """``loss_by_time_NAME`` of each group: its unweighted loss l_g by bins of its local time (`lwd.flow.TIME_BINS`).

    Component losses l_g and times, (B, G) each.
    """
    totals, counts = losses_by_time(losses, times)
    return {f"loss_by_time_{name}": Pooled(totals[g], counts[g]) for g, name in enumerate(layout.names)}


def memory_bytes(device: torch.device) -> int:
    """Memory in bytes: the peak of what tensors took on a GPU; on the CPU, what of this process is resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def summary(line: Line) -> str:
    """A block's last line in a few words."""
    words = [f"loss {line['loss']:.4g}"]
    if "images_per_s" in line:
        words.append(f"{line['images_per_s']:,.4g} images/s")
    return ", ".join(words)
