"""A machine-readable log: the metrics of each step, averaged over processes, in `lwd.training.log_file`'s format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lwd.training.log_file import Line, LogFile, read_log

__all__ = ["Line", "Metric", "MetricLog", "Pooled", "Reduce", "add_share", "read_log"]

Reduce = Callable[[Tensor], Tensor]


class Pooled(NamedTuple):
    """Means over samples whose numbers differ from step to step: sums and counts of one shape, scalar or vector.

    Pooled over the steps of a block and over processes before it is divided.
    """

    sums: Tensor
    counts: Tensor


Metric = Tensor | Pooled


class MetricLog:
    """Collects device tensors step by step and writes them in blocks, so that no step waits for the device.

    ``reduce`` averages a tensor over the ``processes``; only where ``write`` holds and there is a ``path`` is a file
    written, and does ``sink`` get the lines, too. Resuming a run drops the lines of steps that will be done again.
    """

    def __init__(
        self,
        path: Path | None,
        reduce: Reduce,
        write: bool,
        first_step: int = 0,
        processes: int = 1,
        sink: Callable[[Sequence[Line]], None] = lambda lines: None,
    ) -> None:
        self.path, self._reduce, self._processes, self._sink = path if write else None, reduce, processes, sink
        self._pending: list[tuple[int, dict[str, Metric]]] = []
        self._file = None if self.path is None else LogFile(self.path, first_step)

    def add(self, step: int, metrics: Mapping[str, Metric]) -> None:
        """Remember the metrics of one step, detached here: scalars or vectors, on every process the same keys."""
        self._pending.append((step, {key: _kept(value) for key, value in metrics.items()}))

    def flush(self, block: Mapping[str, float] = MappingProxyType({})) -> Line:
        """Write what is pending; returns the newest line. Every process must call it at the same steps.

        The newest line also has ``block`` and the pooled means, each as ``key`` (None where nothing was counted) and
        ``key_count``.
        """
        if not self._pending:
            return {}
        lines: list[Line] = [{"step": step} for step, _ in self._pending]
        for key in dict.fromkeys(key for _, metrics in self._pending for key in metrics):
            rows = [row for row, (_, metrics) in enumerate(self._pending) if key in metrics]
            values = [self._pending[row][1][key] for row in rows]
            if isinstance(values[0], Pooled):
                lines[-1] |= self._pool(key, [v for v in values if isinstance(v, Pooled)])
            else:
                steps = self._reduce(torch.stack([v for v in values if isinstance(v, Tensor)])).tolist()
                for row, value in zip(rows, steps, strict=True):
                    lines[row][key] = value
        self._pending.clear()
        lines[-1] |= block
        if self._file is not None:
            self._file.append(lines)
            self._sink(lines)
        return lines[-1]

    def _pool(self, key: str, values: Sequence[Pooled]) -> Line:
        pool = torch.stack([torch.stack(value).double() for value in values]).sum(dim=0)
        sums, counts = (self._reduce(pool) * self._processes).cpu()
        return {key: _numbers(sums / counts, counts), f"{key}_count": counts.round().long().tolist()}


def _kept(value: Metric) -> Metric:
    if isinstance(value, Pooled):
        return Pooled(value.sums.detach(), value.counts.detach())
    return value.detach().float()


def _numbers(means: Tensor, counts: Tensor) -> Any:
    """The means as plain numbers, None where the count is 0."""
    if means.ndim == 0:
        return means.item() if counts > 0 else None
    return [_numbers(mean, count) for mean, count in zip(means, counts, strict=True)]


def add_share(total: Metric | None, value: Metric, share: float) -> Metric:
    """A micro-batch's metric, added to those before: means by its share of the samples, pooled ones as they are."""
    if isinstance(value, Pooled):
        return value if not isinstance(total, Pooled) else Pooled(total.sums + value.sums, total.counts + value.counts)
    part = value.detach() if share == 1 else value.detach() * share
    return total + part if isinstance(total, Tensor) else part
