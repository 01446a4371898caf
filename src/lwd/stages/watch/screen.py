"""`lwd watch`: one screen about a run, from its log as it grows; the run itself is never touched."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lwd.errors import UserError
from lwd.stages.watch.run import HISTORY, RECENT, Run
from lwd.training.log_file import MEASURED, TRACE, Tail

_BLOCKS = "▁▂▃▄▅▆▇█"
_BAR = 6
_RATES = {"images_per_s": "images/s", "tflops": "TFLOP/s", "data_wait": "data wait", "memory_gib": "memory, GiB"}
_OTHERS = {"grad_norm": "gradient norm", "ema_drift": "EMA drift", "skipped": "skipped"}


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
    parts += [_measured(run.latest)] if any(key.startswith(MEASURED) for key in run.latest) else []
    parts += [_by_time(run.latest), _curves(run)]
    parts.append(_facts({label: run.latest.get(key) for key, label in (_RATES | _OTHERS).items()}))
    age = time.time() - (run.folder / TRACE).stat().st_mtime
    return Panel(
        Group(*parts), title=Text(str(run.folder)), subtitle=f"written {duration(age)} ago", title_align="left"
    )


def _progress(run: Run, steps: int | None, batch: int | None) -> Table:
    speed = run.latest.get("images_per_s")
    speed = speed if isinstance(speed, int | float) else 0.0
    left = (steps - run.done) * batch / speed if steps and batch and speed > 0 else math.nan
    words = "finished" if run.done == steps else f"{duration(left)} left" if math.isfinite(left) else ""
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
    there = run.reference.mean(max(0, run.done - RECENT), run.done)
    now = "" if there is None else f", about {number(there)} at this step"
    said = Text(f"like  {sparkline(other, scale=scale)}  {run.reference.name}{now}", style="dim")
    return [f"loss  {sparkline(own, scale=scale)}", said]


def _losses(run: Run) -> Table:
    """The means of the losses over the recent steps."""
    kinds = ("loss", "flow", "kinetic", "cosine", "repa")
    keys = [k for k in run.latest if k in kinds or k.startswith("flow_")]
    facts: dict[str, Any] = {key.replace("_", " "): run.mean(key) for key in keys}
    if run.mean("flow") and "kinetic" in keys:
        facts["kinetic / flow"] = run.mean("kinetic") / run.mean("flow")
    return _facts(facts)


def _measured(latest: Mapping[str, Any]) -> Table:
    """What was measured on held-out images and on samples, as it was the last time."""
    return _facts({k.replace("_", " "): v for k, v in latest.items() if k.startswith(MEASURED)})


def _by_time(latest: Mapping[str, Any]) -> Table:
    """Each group's loss in every bin of its local time, as numbers and bars."""
    table = Table.grid(padding=(0, 2))
    keys = [
        k for k in latest if k.startswith("loss_by_time_") and isinstance(latest[k], list) and f"{k}_count" in latest
    ]
    numbers = [x for key in keys for x in latest[key] if x is not None and math.isfinite(x)]
    for key in keys:
        cells = [f"{number(x)} {_bar(x, max(numbers, default=1.0))}" for x in latest[key]]
        table.add_row(f"loss by time of {key.removeprefix('loss_by_time_')}", *cells)
    return table


def _curves(run: Run) -> Table:
    """Of a probe: where each learned curve is, and how far from collapse."""
    table = Table.grid(padding=(0, 2))
    lists = [key for key, value in run.latest.items() if isinstance(value, list)]
    for name in [k.removeprefix("rho_") for k in lists if k.startswith("rho_") and f"curve_{k[4:]}" in lists]:
        points = "  ".join(
            f"t({p}) {number(t)}" for p, t in zip((0.25, 0.5, 0.75), run.latest[f"curve_{name}"], strict=False)
        )
        away = run.distance(run.latest[f"rho_{name}"])
        table.add_row(f"curve of {name}", points, "" if away is None else f"distance from collapse {number(away)}")
    return table


def _facts(values: Mapping[str, Any]) -> Table:
    """Names over numbers, for those that are there."""
    table = Table.grid(padding=(0, 2))
    there = {name: value for name, value in values.items() if isinstance(value, int | float)}
    table.add_row(*(f"[dim]{name}[/dim]" for name in there))
    table.add_row(*(number(value) for value in there.values()))
    return table


def sparkline(values: Sequence[float], width: int = HISTORY, scale: tuple[float, float] | None = None) -> str:
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


def number(value: float | None) -> str:
    """To three digits, or to the unit; "-" for none."""
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds in words, to the minute where there are minutes."""
    hours, minutes = divmod(int(seconds) // 60, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{int(seconds)} s"
