"""Ending a probe before its last step, where rho shows what will come of it.

It is looked at after fixed steps only, and all that a look needs is in the probe's checkpoint: one that is killed and
goes on stops at the same step for the same reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from lwd.schedules import Schedule
from lwd.schedules.collapse import Criterion
from lwd.schedules.distance import curve_distance

Vectors = dict[str, Tensor]
"""By learned group, the parameters of its curve (P,)."""


@dataclass(frozen=True)
class EarlyStop:
    """When a probe ends early; it is looked at after every ``window`` steps.

    Collapsed: the criterion held for the curve of every one of the last ``window`` steps. Settled: the averaged curve
    (over the steps after burn-in, at least two windows of them) moved by at most ``settled_within``, in the supremum
    over tau, since one window ago.
    """

    window: int
    settled_within: float = 0.005
    criterion: Criterion = field(default_factory=Criterion)


@dataclass(frozen=True)
class Stopped:
    """A probe that ended early: why, after how many steps, and its rho, averaged over the steps after ``burn_in``."""

    reason: Literal["collapsed", "settled"]
    steps: int
    burn_in: int
    vectors: Vectors

    @property
    def provenance(self) -> dict[str, Any]:
        """The entries of the schedule's provenance that replace those of the settings."""
        return {"stopped": self.reason, "steps": self.steps, "burn_in": self.burn_in}


class Watcher:
    """Follows one probe of ``schedule`` under a rule: rho of the last window, the averages at the last two looks."""

    def __init__(self, rule: EarlyStop, schedule: Schedule, burn_in: int) -> None:
        self._rule, self._burn_in = rule, burn_in
        self._like = schedule
        vectors = schedule.parameter_vectors()
        self._recent = {name: rho.new_full((rule.window, len(rho)), torch.nan) for name, rho in vectors.items()}
        self._looks: dict[int, Vectors] = {}

    def add(self, step: int, vectors: Mapping[str, Tensor]) -> None:
        """Remember rho after ``step`` steps."""
        for name, rho in vectors.items():
            self._recent[name][(step - 1) % self._rule.window] = rho

    def look(self, step: int, averages: Vectors) -> Stopped | None:
        """Decide after ``step`` steps, at the end of a window, whether to stop; None: go on, or not at a window's end.

        ``averages``: of rho over the steps after burn-in.
        """
        if step % self._rule.window:
            return None
        recent = {name: rows.double().cpu() for name, rows in self._recent.items()}
        if any(self._collapsed(name, rows) for name, rows in recent.items()):
            mean = {name: rows.mean(0).float() for name, rows in recent.items()}
            return Stopped("collapsed", step, step - self._rule.window, mean)
        if step <= self._burn_in:
            return None
        now = {name: average.cpu() for name, average in averages.items()}
        self._looks = {at: then for at, then in self._looks.items() if at == step - self._rule.window} | {step: now}
        if step >= self._burn_in + 2 * self._rule.window and self._settled(step, now):
            return Stopped("settled", step, self._burn_in, now)
        return None

    def _collapsed(self, name: str, rows: Tensor) -> bool:
        if not bool(rows.isfinite().all()):  # a probe that went on without a rule has no such window yet
            return False
        curve = self._like[name]
        return all(self._rule.criterion.holds(curve.with_parameters(row.float())) for row in rows.flip(0))

    def _settled(self, step: int, now: Vectors) -> bool:
        before = self._looks.get(step - self._rule.window)
        if before is None:
            return False
        curves = {name: self._like[name] for name in now}
        moved = [
            curve_distance(curves[name].with_parameters(now[name]), curves[name].with_parameters(before[name]))
            for name in now
        ]
        return max(moved) <= self._rule.settled_within

    def state(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint must hold."""
        looks = {f"look/{step}/{name}": rho for step, averages in self._looks.items() for name, rho in averages.items()}
        return {f"recent/{name}": rows for name, rows in self._recent.items()} | looks

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned; of a probe under another rule, the part that still means the same."""
        for name, rows in self._recent.items():
            saved = state.get(f"recent/{name}")
            if saved is not None and saved.shape == rows.shape:
                rows.copy_(saved)
        for key, rho in state.items():
            if key.startswith("look/"):
                _, step, name = key.split("/")
                self._looks.setdefault(int(step), {})[name] = rho
