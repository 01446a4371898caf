"""How the probe of the learned schedule got there: rho, the curve and the losses over its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lwd.errors import UserError
from lwd.plots import figures as plots
from lwd.plots.drawing import Drawing
from lwd.plots.figures import Line
from lwd.plots.text import RHO, counted
from lwd.plots.theme import ramp_colour
from lwd.probe.table import TABLE, read_table
from lwd.run import RunConfig
from lwd.schedules import Schedule
from lwd.stages.report.learned import READ_AT, read_schedule
from lwd.training.log_file import TRACE, evenly_spaced, scan_log
from lwd.training.log_file import Line as LogLine


@dataclass(frozen=True)
class TraceSection:
    """``figures``: (caption, drawing)."""

    kinetic_weight: float | None
    burn_in: int
    steps: int
    figures: list[tuple[str, Drawing]]


def trace_section(config: RunConfig) -> TraceSection | None:
    """None where there is no schedule, or its probe left no trace."""
    found = read_schedule(config)
    path = _trace_of(config, *found) if found else None
    if not found or path is None:
        return None
    schedule = found[0]
    try:
        table = config.output / "sweep" / TABLE
        points = read_table(table).points if table.is_file() else READ_AT
        return _section(schedule, _read(path), points)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path}: not the log of a probe of this schedule ({error!r})") from error


def _trace_of(config: RunConfig, schedule: Schedule, path: Path) -> Path | None:
    """The log of the probe that learned ``schedule``: beside it, or in the sweep's folder for its lambda."""
    weight, seed = schedule.provenance.get("lambda"), schedule.provenance.get("seed")
    names = [] if weight is None else [f"lambda-{weight:g}-seed{seed}", f"lambda-{weight:g}"]
    folders = [path.parent, *(config.output / "sweep" / name for name in names)]
    return next((folder / TRACE for folder in folders if (folder / TRACE).is_file()), None)


def _read(path: Path) -> list[LogLine]:
    log = list(scan_log(path))
    if not log:
        raise UserError(f"{path}: empty; run the probe again")
    return log


def _section(schedule: Schedule, whole: list[LogLine], points: Sequence[float]) -> TraceSection:
    log, spacing = evenly_spaced(whole)
    steps = np.array([float(line["step"]) for line in log])
    burn_in = int(schedule.provenance.get("burn_in", 0))
    window = max(1, len(log) // 50)
    figures = []
    for name in schedule.learned:
        rho = np.array([line[f"rho_{name}"] for line in log])
        curve = np.array([line[f"curve_{name}"] for line in log])
        rho_lines = _columns(steps, rho, [f"{RHO}{m}" for m in range(rho.shape[1])])
        curve_lines = _columns(steps, curve, [f"t({point:g})" for point in points])
        figures.append((f"{RHO} of {name}", plots.trace(rho_lines, burn_in, RHO)))
        figures.append(
            (
                f"The curve of {name} at {counted(len(points))} global times",
                plots.trace(curve_lines, burn_in, "t", True),
            )
        )
    losses = plots.trace(_losses(log, steps, schedule, window), burn_in, "loss")
    figures.append((f"Losses, averaged over {window * spacing} steps" if window > 1 else "Losses", losses))
    return TraceSection(schedule.provenance.get("lambda"), burn_in, whole[-1]["step"] + 1, figures)


def _columns(steps: NDArray[np.float64], values: NDArray[np.float64], labels: list[str]) -> list[Line]:
    """One line per column of values (steps, columns)."""
    columns = zip(labels, values.T, strict=True)
    return [Line(label, steps, column, ramp_colour(i, len(labels))) for i, (label, column) in enumerate(columns)]


def _losses(log: list[LogLine], steps: NDArray[np.float64], schedule: Schedule, window: int) -> list[Line]:
    """The flow loss of each group and the kinetic term, each value the mean of the last ``window`` lines."""
    keys = {f"flow_{name}": f"flow, {name}" for name in schedule.names} | {"kinetic": "kinetic"}
    values = np.array([[float(line[key]) for line in log] for key in keys])
    smooth = np.array([np.convolve(row, np.ones(window) / window, mode="valid") for row in values])
    return _columns(steps[window - 1 :], smooth.T, list(keys.values()))
