"""`lwd watch`: one screen about a run, from its log as it grows; the run itself is never touched."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lwd.config import read_yaml
from lwd.errors import UserError
from lwd.health.reference import Reference, reference_for
from lwd.schedules import PolynomialCurve
from lwd.schedules.collapse import distance
from lwd.schedules.registry import curve_class
from lwd.training.log_file import MEASURED, TRACE, Line, Tail

POLYNOMIAL = PolynomialCurve.kind
"""Whose degree the log itself says."""
_RECENT = 50
"""Losses are means over so many steps."""
_BLOCKS = "▁▂▃▄▅▆▇█"
_BAR = 6
_HISTORY = 60
_RATES = {"images_per_s": "images/s", "tflops": "TFLOP/s", "data_wait": "data wait", "memory_gib": "memory, GiB"}
_OTHERS = {"grad_norm": "gradient norm", "ema_drift": "EMA drift", "skipped": "skipped"}


class History:
    """A value over steps, as means over equal stretches: never more than twice `_HISTORY`, however many steps."""

    def __init__(self) -> None:
        self._stretch = 1
        self._sums: dict[int, tuple[float, int]] = {}

    def add(self, step: int, value: float) -> None:
        """Take in the value of a step; one that is not finite counts for nothing."""
        while step // self._stretch >= 2 * _HISTORY:
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
    recent: deque[Line] = field(default_factory=lambda: deque(maxlen=_RECENT))
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
    def plan(self) -> tuple[int | None, int | None]:
        """Steps in all and the batch, as far as config.yaml says."""
        stage = "probe" if "kinetic" in self.latest else "train" if "flow" in self.latest else "semvae"
        section = self._section(stage)
        try:
            steps, batch = (None if (n := section.get(key)) is None else int(n) for key in ("steps", "batch"))
            return steps, batch
        except (TypeError, ValueError) as error:
            raise UserError(f"{self._config}: not the config of a run") from error

    def distance(self, parameters: Sequence[float]) -> float | None:
        """From collapse, of a probe's curve; None for a family that this process does not know."""
        section = self._section("probe")
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
        config = read_yaml(self._config) if self._config.is_file() else {}
        return reference_for(config) if "flow" in self.latest and "kinetic" not in self.latest else None

    @property
    def _config(self) -> Path:
        return self.folder / "config.yaml"

    def _section(self, stage: str) -> Mapping[str, Any]:
        """The stage's settings, none where there is no config.yaml; raises UserError for a file of something else."""
        try:
            section = read_yaml(self._config).get(stage) if self._config.is_file() else {}
        except UserError as error:
            raise UserError(f"{self._config}: not the config of a run") from error
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


def watch(folder: Path, once: bool = False, console: Console | None = None, every_s: float = 1.0) -> None:
    """Show the run until its last step or Ctrl-C, or once. Raises UserError where there is no log."""
    path = folder / TRACE
    if not path.is_file():
        raise UserError(f"{path}: no such log; name the folder of a run, e.g. OUTPUT/train/NAME")
    tail, run, screen = Tail(path), Run(folder), console or Console()
    run.add(tail.lines()[1])
    if once:
        screen.print(render(run))
        return
    with Live(render(run), console=screen, auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while not run.ended:
            time.sleep(every_s)
            fresh, lines = tail.lines()
            run = Run(folder) if fresh else run
            run.add(lines)
            live.update(render(run), refresh=True)


def render(run: Run) -> RenderableType:
    """The screen."""
    if not run.latest:
        return Panel("no step is logged yet", title=Text(str(run.folder)), title_align="left")
    steps, batch = run.plan
    parts: list[RenderableType] = [_progress(run, steps, batch), *_loss_so_far(run), _losses(run)]
    parts += [_by_time(run.latest), _curves(run)]
    parts.append(_facts({label: run.latest.get(key) for key, label in (_RATES | _OTHERS).items()}))
    age = time.time() - (run.folder / TRACE).stat().st_mtime
    return Panel(
        Group(*parts), title=Text(str(run.folder)), subtitle=f"written {_duration(age)} ago", title_align="left"
    )


def _progress(run: Run, steps: int | None, batch: int | None) -> Table:
    speed = run.latest.get("images_per_s")
    speed = speed if isinstance(speed, int | float) else 0.0
    left = (steps - run.done) * batch / speed if steps and batch and speed > 0 else math.nan
    words = "finished" if run.done == steps else f"{_duration(left)} left" if math.isfinite(left) else ""
    table = Table.grid(padding=(0, 1))
    count = f"step {run.done:,}" + (f" of {steps:,}" if steps else "")
    table.add_row(count, ProgressBar(total=steps, completed=run.done, width=30) if steps else "", words)
    return table


def _loss_so_far(run: Run) -> list[RenderableType]:
    """The loss by step as a line of blocks; below it, on the same scale, that of a run that went well."""
    own = run.losses.means
    if run.reference is None:
        return [f"loss  {sparkline(own)}"]
    other = run.losses.beside(run.reference)
    finite = [mean for mean in (*own, *other) if math.isfinite(mean)]
    scale = (min(finite), max(finite)) if finite else None
    there = run.reference.mean(max(0, run.done - _RECENT), run.done)
    now = "" if there is None else f", about {_number(there)} at this step"
    said = Text(f"like  {sparkline(other, scale=scale)}  {run.reference.name}{now}", style="dim")
    return [f"loss  {sparkline(own, scale=scale)}", said]


def _losses(run: Run) -> Table:
    """The means of the losses over the recent steps; held-out ones as last measured."""
    kinds = ("loss", "flow", "kinetic", "cosine", "repa")
    keys = [k for k in run.latest if k in kinds or k.startswith("flow_")]
    facts: dict[str, Any] = {key.replace("_", " "): run.mean(key) for key in keys}
    if run.mean("flow") and "kinetic" in keys:
        facts["kinetic / flow"] = run.mean("kinetic") / run.mean("flow")
    facts |= {k.replace("_", " "): v for k, v in run.latest.items() if k.startswith(MEASURED)}
    return _facts(facts)


def _by_time(latest: Mapping[str, Any]) -> Table:
    """Each group's loss in every bin of its local time, as numbers and bars."""
    table = Table.grid(padding=(0, 2))
    keys = [
        k for k in latest if k.startswith("loss_by_time_") and isinstance(latest[k], list) and f"{k}_count" in latest
    ]
    numbers = [x for key in keys for x in latest[key] if x is not None and math.isfinite(x)]
    for key in keys:
        cells = [f"{_number(x)} {_bar(x, max(numbers, default=1.0))}" for x in latest[key]]
        table.add_row(f"loss by time of {key.removeprefix('loss_by_time_')}", *cells)
    return table


def _curves(run: Run) -> Table:
    """Of a probe: where each learned curve is, and how far from collapse."""
    table = Table.grid(padding=(0, 2))
    lists = [key for key, value in run.latest.items() if isinstance(value, list)]
    for name in [k.removeprefix("rho_") for k in lists if k.startswith("rho_") and f"curve_{k[4:]}" in lists]:
        points = "  ".join(
            f"t({p}) {_number(t)}" for p, t in zip((0.25, 0.5, 0.75), run.latest[f"curve_{name}"], strict=False)
        )
        away = run.distance(run.latest[f"rho_{name}"])
        table.add_row(f"curve of {name}", points, "" if away is None else f"distance from collapse {_number(away)}")
    return table


def _facts(values: Mapping[str, Any]) -> Table:
    """Names over numbers, for those that are there."""
    table = Table.grid(padding=(0, 2))
    there = {name: value for name, value in values.items() if isinstance(value, int | float)}
    table.add_row(*(f"[dim]{name}[/dim]" for name in there))
    table.add_row(*(_number(value) for value in there.values()))
    return table


def sparkline(values: Sequence[float], width: int = _HISTORY, scale: tuple[float, float] | None = None) -> str:
    """Means over equal stretches of ``values``, from the lowest to the highest, as blocks; blank where not finite.

    ``scale``: the lowest and the highest value instead, of which none may be beyond.
    """
    size = max(1, math.ceil(len(values) / width))
    chunks = [[v for v in values[i : i + size] if math.isfinite(v)] for i in range(0, len(values), size)]
    means = [math.fsum(chunk) / len(chunk) if chunk else math.nan for chunk in chunks]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = scale or (min(finite, default=0.0), max(finite, default=0.0))
    steps = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * steps)] if math.isfinite(mean) else " " for mean in means)


def _bar(value: float | None, largest: float) -> str:
    share = value / largest if value is not None and math.isfinite(value) and largest > 0 else 0.0
    return ("█" * round(_BAR * share)).ljust(_BAR)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _duration(seconds: float) -> str:
    hours, minutes = divmod(int(seconds) // 60, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{int(seconds)} s"
