"""A machine-readable log: one JSON object per step, in a .jsonl file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.files import atomic_path

Reduce = Callable[[Tensor], Tensor]


class MetricLog:
    """Collects device tensors step by step and writes them in blocks, so that no step waits for the device.

    ``reduce`` averages a tensor over processes; only where ``write`` holds is a file written. Resuming a run drops the
    lines of steps that will be done again.
    """

    def __init__(self, path: Path, reduce: Reduce, write: bool, first_step: int = 0) -> None:
        self.path, self._reduce, self._write = path, reduce, write
        self._pending: list[tuple[int, dict[str, Tensor]]] = []
        if write:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = [line for line in path.read_text().splitlines() if _step(line) < first_step] if path.exists() else []
            with atomic_path(path) as temporary:
                temporary.write_text("".join(line + "\n" for line in kept))

    def add(self, step: int, metrics: Mapping[str, Tensor]) -> None:
        """Remember the metrics (scalars or vectors, detached here) of one step."""
        self._pending.append((step, {key: value.detach().float() for key, value in metrics.items()}))

    def flush(self) -> dict[str, Any]:
        """Write what is pending; returns the newest line. Every process must call it at the same steps."""
        if not self._pending:
            return {}
        keys = list(self._pending[0][1])
        stacked = {key: self._reduce(torch.stack([m[key] for _, m in self._pending])).tolist() for key in keys}
        lines = [
            {"step": step} | {key: stacked[key][row] for key in keys} for row, (step, _) in enumerate(self._pending)
        ]
        self._pending.clear()
        if self._write:
            with self.path.open("a") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
        return lines[-1]


def read_log(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a log, in order. Raises UserError where it is missing."""
    if not path.is_file():
        raise UserError(f"{path}: no such log")
    return [json.loads(line) for line in path.read_text().splitlines() if _step(line) != _CUT_SHORT]


_CUT_SHORT = float("inf")
"""The step of a line that a kill cut short."""


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError):
        return _CUT_SHORT
