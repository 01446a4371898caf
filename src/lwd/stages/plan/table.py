"""The plan as a person reads it: tables, and what was assumed."""

from __future__ import annotations

import sys
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table

from lwd.planning import LEAST_STEP_S
from lwd.planning.memory import CONTEXT_BYTES, WORKING
from lwd.stages.plan.run import Plan
from lwd.stages.plan.units import binary, duration, money, scaled, size

WIDTH = 118
"""Where there is no terminal."""


def on_screen(plan: Plan) -> str:
    """Tables with colours where standard output is a terminal, else plain text."""
    terminal = sys.stdout.isatty()
    out = StringIO()
    console = Console(file=out, force_terminal=terminal, width=None if terminal else WIDTH, highlight=False)
    for part in (_network(plan), _memory(plan), _hours(plan), _disk(plan)):
        console.print(part)
    for line in plan.warnings:
        console.print(line, style="bold yellow", markup=False, soft_wrap=True)
    console.print(_assumed(plan), style="dim", markup=False, soft_wrap=True)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _table(*columns: str, numbers: int = 0) -> Table:
    """A table whose last ``numbers`` columns are numbers."""
    table = Table(box=box.ASCII2 if not sys.stdout.isatty() else box.SIMPLE, title_justify="left")
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place >= len(columns) - numbers else "left")
    return table


def _network(plan: Plan) -> str:
    c, d = plan.count, plan.data
    latents = " x ".join(map(str, d.shape)) or "no grid"
    learn = "" if c.trained > 0.99 * c.parameters else f", {scaled(c.trained)}of them learn"
    flops = "" if plan.step_flops is None else (
        f"; {scaled(plan.forward_flops or 0)} operations an image forward, {scaled(plan.step_flops)} a training step"
    )  # fmt: skip
    count = "an unknown number of" if d.images is None else f"{d.images:,}"
    head = "" if d.feature_dim is None else f", REPA features of {d.feature_dim}"
    return (
        f"{plan.network}: {scaled(c.parameters)} parameters{learn}{flops}\n"
        f"{count} images, latents on {latents}{head} (by {d.source})"
    )


def _memory(plan: Plan) -> Table:
    m = plan.machine
    table = _table(
        f"memory of each card ({m.gpus} x {m.card}, {binary(m.memory)})", *plan.memory, numbers=len(plan.memory)
    )
    found = [each for each in plan.memory.values() if each is not None]
    for name in found[0].parts if found else ():
        if any(each.parts[name] for each in found):
            table.add_row(name, *("-" if each is None else binary(each.parts[name]) for each in plan.memory.values()))
    sums = ("unknown" if each is None else binary(each.total) for each in plan.memory.values())
    table.add_row("together", *sums, style="bold")
    table.add_row("images at once", *("-" if e is None else f"{e.micro_batch:,}" for e in plan.memory.values()))
    return table


def _hours(plan: Plan) -> Table:
    table = _table("stage", "what", "operations", "time", "US$", numbers=3)
    for row in plan.hours:
        work = row.work
        operations = "unknown" if work.operations is None else f"{work.operations:.2g}" if work.operations else "-"
        took = "unknown" if row.hours is None else duration(3600 * row.hours) if row.hours else "-"
        cost = "unknown" if row.cost is None else money(row.cost) if row.cost else "-"
        table.add_row(work.stage + " *" * (not work.counted), work.what, operations, took, cost)
    hours, cost_of_all = plan.total
    without = "without *" if any(not row.work.counted for row in plan.hours) else ""
    table.add_row("together", without, "", duration(3600 * hours), money(cost_of_all), style="bold")
    return table


def _disk(plan: Plan) -> Table:
    table = _table("disk", "what", "", numbers=1)
    for row in plan.disk:
        table.add_row(row.name, row.what, "unknown" if row.bytes is None else size(row.bytes))
    table.add_row("together", "", size(sum(row.bytes or 0 for row in plan.disk)), style="bold")
    return table


def _assumed(plan: Plan) -> str:
    m = plan.machine
    return (
        f"Assumed: {100 * m.share:g} % of {m.tflops:g} TFLOP/s ({m.rate}) on each card, no step under "
        f"{1000 * LEAST_STEP_S:g} ms, US$ {m.price:g} an hour and card (a round figure, no offer). Memory: "
        f"not compiled (compiled blocks keep less), {WORKING} times the largest tensor and "
        f"{CONTEXT_BYTES / 2**30:g} GiB beside."
    )
