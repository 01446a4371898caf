"""What is known of a run from its folder: its log's newest lines, and what its config says it is to do."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from lwd.config import SETTINGS, parse_yaml
from lwd.errors import UserError
from lwd.files import read_bounded
from lwd.health.reference import Reference, reference_for
from lwd.schedules import PolynomialCurve
from lwd.schedules.collapse import distance
from lwd.schedules.registry import curve_class
from lwd.training.log_file import Line

POLYNOMIAL = PolynomialCurve.kind
"""Whose degree the log itself says."""
HISTORY = 60
"""How many means of a value are kept, up to twice as many."""
RECENT = 50
"""Losses are means over so many steps."""


class History:
    """A value over steps, as means over equal stretches: never more than twice `HISTORY`, however many steps."""

    def __init__(self) -> None:
        self._stretch = 1
        self._sums: dict[int, tuple[float, int]] = {}

    def add(self, step: int, value: float) -> None:
        """Take in the value of a step; one that is not finite counts for nothing."""
        while step // self._stretch >= 2 * HISTORY:
            self._stretch *= 2
            halved, self._sums = self._sums, {}
            for number, pair in halved.items():
                self._put(number // 2, *pair)
        self._put(step // self._stretch, *((value, 1) if math.isfinite(value) else (0.0, 0)))

    def _put(self, number: int, value: float, count: int) -> None:
        total, seen = self._sums.get(number, (0.0, 0))
        self._sums[number] = total + value, seen + count

    @property
    def means(self) -> list[float]:
        """Of the stretches in order, NaN where there was nothing."""
        return [total / count if count else math.nan for _, (total, count) in sorted(self._sums.items())]

    def beside(self, reference: Reference) -> list[float]:
        """Another run's means over the same stretches, NaN beyond its end."""
        of_each = (reference.mean(n * self._stretch, (n + 1) * self._stretch) for n in sorted(self._sums))
        return [math.nan if mean is None else mean for mean in of_each]


@dataclass
class Run:
    """What is known of a run: its plan, the newest value of every key, the recent steps and the loss so far."""

    folder: Path
    latest: Line = field(default_factory=dict)
    recent: deque[Line] = field(default_factory=lambda: deque(maxlen=RECENT))
    losses: History = field(default_factory=History)

    def add(self, lines: Sequence[Line]) -> None:
        """Take in new lines."""
        for line in lines:
            self.latest |= line
            self.recent.append(line)
            loss = line.get("loss")
            self.losses.add(line["step"], loss if isinstance(loss, int | float) else math.nan)

    @property
    def done(self) -> int:
        """Steps so far."""
        return int(self.latest["step"]) + 1 if self.latest else 0

    @property
    def command(self) -> str:
        """What runs here, by what it logs; as long as there is nothing by where it lies."""
        if self.latest:
            return "probe" if "kinetic" in self.latest else "train" if "flow" in self.latest else "semvae"
        return "train" if self.folder.parent.name == "train" else "semvae" if self.folder.name == "semvae" else "probe"

    @property
    def plan(self) -> tuple[int | None, int | None]:
        """Steps in all and the batch, as far as config.yaml says."""
        section = self.section(self.command)
        try:
            steps, batch = (None if (n := section.get(key)) is None else int(n) for key in ("steps", "batch"))
            return steps, batch
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{self._config}: not the config of a run") from error

    def distance(self, parameters: Sequence[float]) -> float | None:
        """From collapse, of a probe's curve; None for a family that this process does not know."""
        section = self.section("probe")
        family, settings = section.get("family", POLYNOMIAL), section.get("curve", {})
        try:
            if family == POLYNOMIAL:
                settings = {"degree": len(parameters) - 1}
            return distance(curve_class(family, "family")(**settings).with_parameters(torch.tensor(parameters)))
        except (UserError, TypeError, ValueError):
            return None

    @cached_property
    def reference(self) -> Reference | None:
        """A run that went well, of the same network, data and objective; None where none is known."""
        config = config_of(self.folder)
        return reference_for(config) if "flow" in self.latest and "kinetic" not in self.latest else None

    @property
    def _config(self) -> Path:
        return self.folder / SETTINGS

    def section(self, stage: str) -> Mapping[str, Any]:
        """The stage's settings, none where there is no config.yaml; raises UserError for a file of something else."""
        section = config_of(self.folder).get(stage, {})
        if not isinstance(section, Mapping):
            raise UserError(f"{self._config}: not the config of a run")
        return section

    @property
    def ended(self) -> bool:
        """Whether nothing is to come: its last step, or a probe's schedule, which a sweep may have taken early."""
        steps = self.plan[0]
        return (steps is not None and self.done >= steps) or (self.folder / "schedule.json").is_file()

    def mean(self, key: str) -> float:
        """Over the recent steps that have it."""
        values = [line[key] for line in self.recent if isinstance(line.get(key), int | float)]
        return math.fsum(values) / len(values) if values else math.nan


def config_of(folder: Path) -> dict[str, Any]:
    """What the config.yaml in a run's folder holds, nothing where there is none; raises UserError for another file."""
    file = folder / SETTINGS
    try:
        return parse_yaml(read_bounded(file), str(file)) if file.is_file() else {}
    except UserError as error:
        raise UserError(f"{file}: not the config of a run") from error
