"""A machine-readable log: one JSON object per step, in a .jsonl file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.files import atomic_path, writing_to

Reduce = Callable[[Tensor], Tensor]


class Pooled(NamedTuple):
    """Means over samples whose numbers differ from step to step: sums and counts of one shape, scalar or vector.

    Pooled over the steps of a block and over processes before it is divided.
    """

    sums: Tensor
    counts: Tensor


Metric = Tensor | Pooled
Line = dict[str, Any]


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
        if write and path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            kept = [line for line in lines if _step(line) < first_step]
            with atomic_path(path) as temporary:
                temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

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
        if self.path is not None:
            with writing_to(self.path), self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
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


def read_log(path: Path) -> list[Line]:
    """All whole lines of a log, in order. Raises UserError where it is missing."""
    if not path.is_file():
        raise UserError(f"{path}: no such log")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if _step(line) != _CUT_SHORT]


_CUT_SHORT = float("inf")
"""The step of a line that a kill cut short."""


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError):
        return _CUT_SHORT
