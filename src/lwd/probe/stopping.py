"""Ending a probe before its last step, where its log shows what will come of it.

The log is looked at after fixed steps only, and what it says of the first n steps never changes: a probe that is killed
and goes on, or that later went on to its full length, stops at the same step for the same reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.runtime.checkpoint import find_checkpoints
from lwd.runtime.processes import Processes
from lwd.runtime.progress import Advance, forwarding, progress_bar
from lwd.schedules import PolynomialCurve
from lwd.schedules.collapse import Criterion
from lwd.training.logging import read_log
from lwd.training.loop import StepData
from lwd.training.task import Task

TAU = torch.linspace(0, 1, 1001, dtype=torch.float64)

Rho = Mapping[str, Tensor]
"""By learned group, rho after every step: (steps, M + 1)."""


@dataclass(frozen=True)
class Stopped:
    """A probe that ended early: why, after how many steps, and its rho, averaged over the steps after ``burn_in``."""

    reason: Literal["collapsed", "settled"]
    steps: int
    burn_in: int
    rho: dict[str, Tensor]

    @property
    def provenance(self) -> dict[str, Any]:
        """What the schedule's provenance says instead of the settings."""
        return {"stopped": self.reason, "steps": self.steps, "burn_in": self.burn_in}


@dataclass(frozen=True)
class EarlyStop:
    """When a probe of so many ``steps`` ends early; it is looked at after every ``window`` steps.

    Collapsed: the criterion held for the curve of every one of the last ``window`` steps. Settled: the averaged curve
    (over the steps after ``burn_in``, at least two windows of them) moved by at most ``settled_within``, in the
    supremum over tau, since one window ago.
    """

    steps: int
    burn_in: int
    window: int
    settled_within: float
    criterion: Criterion

    @property
    def looks(self) -> list[int]:
        """After how many steps the probe is looked at; the last is its end."""
        return [*range(self.window, self.steps, self.window), self.steps]

    def first(self, rho: Rho) -> Stopped | None:
        """Where the log of a probe, so far or to its end, first said stop; None where it has not."""
        done = min(len(values) for values in rho.values())
        looks = [look for look in self.looks if look <= done and look < self.steps]
        return next((found for look in looks if (found := self.after(look, rho)) is not None), None)

    def after(self, look: int, rho: Rho) -> Stopped | None:
        """What the first ``look`` steps say."""
        if any(self._collapsed(values[look - self.window : look]) for values in rho.values()):
            return self._stopped("collapsed", look, look - self.window, rho)
        if look >= self.burn_in + 2 * self.window and all(self._settled(look, values) for values in rho.values()):
            return self._stopped("settled", look, self.burn_in, rho)
        return None

    def _collapsed(self, values: Tensor) -> bool:
        return all(self.criterion.holds(PolynomialCurve.from_rho(row.float())) for row in values.flip(0))

    def _settled(self, look: int, values: Tensor) -> bool:
        now, before = (values[self.burn_in : end].mean(0) for end in (look, look - self.window))
        return curve_distance(PolynomialCurve.from_rho(now), PolynomialCurve.from_rho(before)) <= self.settled_within

    def _stopped(self, reason: Literal["collapsed", "settled"], look: int, burn_in: int, rho: Rho) -> Stopped:
        averaged = {name: values[burn_in:look].mean(0).float() for name, values in rho.items()}
        return Stopped(reason, look, burn_in, averaged)


@torch.no_grad()
def curve_distance(one: PolynomialCurve, other: PolynomialCurve) -> float:
    """The supremum over tau of the distance between two curves, on 1 001 points (error below (M + 1) / 2000)."""
    return float((one(TAU)[0] - other(TAU)[0]).abs().max())


def fit_until_stopped(
    processes: Processes,
    rule: EarlyStop | None,
    task: Task,
    batches: StepData[Any],
    *,
    steps: int,
    folder: Path,
    **more: Any,
) -> Stopped | None:
    """`Engine.fit`, in parts that end where ``rule`` looks; returns why it ended early, None where it did not.

    A part begins where the one before was saved, so that the parts are bit for bit one run. A probe that has been run
    further than where the rule stops it is not run again.
    """
    if rule is None:
        processes.fit(task, batches, steps=steps, folder=folder, **more)
        return None
    done = max(find_checkpoints(folder), default=0) if processes.compute.resume else 0
    ends = [look for look in rule.looks if look >= done] or [steps]
    with progress_bar(more["title"], steps, show=processes.is_main and processes.compute.progress) as bar:
        count = _Count(bar)
        for end in ends:
            with forwarding(count.part()):
                processes.fit(task, batches, steps=end, folder=folder, **more)
            processes.compute = processes.compute.model_copy(
                update={"resume": True}
            )  # the next part goes on from this one
            stopped = rule.first(_read_rho(folder / "trace.jsonl", end))
            if stopped is not None:
                bar(steps - max(end, stopped.steps))
                return stopped
    return None


class _Count:
    """Passes on what the bars of the parts count, each of which begins with the steps before it, only once."""

    def __init__(self, advance: Advance) -> None:
        self._advance, self._passed_on = advance, 0

    def part(self) -> Advance:
        """For the next part."""
        reached = 0

        def count(steps: int) -> None:
            nonlocal reached
            reached += steps
            self._advance(max(0, reached - self._passed_on))
            self._passed_on = max(reached, self._passed_on)

        return count


def _read_rho(path: Path, steps: int) -> Rho:
    """rho of the first ``steps`` steps from a probe's log, in float64; raises UserError where lines are missing."""
    lines = read_log(path)[:steps]
    if [line["step"] for line in lines] != list(range(steps)):
        raise UserError(
            f"{path}: not every step up to {steps} has its line, so early stopping cannot be decided; remove "
            f"{path.parent} to run this probe again, or set sweep.early_stop=false"
        )
    names = [key.removeprefix("rho_") for key in lines[0] if key.startswith("rho_")]
    return {name: torch.tensor([line[f"rho_{name}"] for line in lines], dtype=torch.float64) for name in names}
