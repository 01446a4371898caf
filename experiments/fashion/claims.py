"""The paper's claims against the rows: each with what was measured and a verdict by a rule that is stated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from design import StudyConfig
from stats import Row, between, by_seed, curve, from_extremal, paired, steps_to_reach, widest
from tables import COLLAPSED, LEARNED, MISSING, OFFSET, SFD, SYNCHRONOUS, table

EXACT = "learned-exact"
SPEEDUP = 5.0
"""The paper's: SFD takes about so many times as long to reach what the learned schedule reaches."""
ONE_CURVE = 0.05
"""Collapsed curves count as one within this supremum distance; the identity is 0.53 from tau^5."""
SAME_DISTANCE = 0.05
"""Distances from collapse that differ by less say nothing of an order."""

Line = list[str]


def claims(study: StudyConfig, rows: Sequence[Row], probes: Sequence[Row], semantics: Sequence[Row]) -> str:
    """A line for each claim. Comparisons: held or contradicted where the paired test says so, else undecided."""
    main = study.study.main
    cell = study.study.cells[main]
    first, last = min(cell.budgets), max(cell.budgets)
    lines = [
        _better(rows, main, steps, LEARNED, base)
        for steps in dict.fromkeys((first, last))
        for base in (SYNCHRONOUS, SFD, OFFSET)
    ]
    lines += [_better(rows, main, last, LEARNED, base, guided=True) for base in (SYNCHRONOUS, SFD) if cell.guided]
    coarse = [study.study.solvers[name] for name in cell.solvers]
    if coarse:
        solver = min((f"{each['solver']}{each['steps']}" for each in coarse), key=lambda name: (len(name), name))
        lines.append(_better(rows, main, last, LEARNED, SYNCHRONOUS, solver=solver, exact=False))
    lines += [
        _better(rows, main, last, LEARNED, EXACT),
        _better(rows, main, last, LEARNED, COLLAPSED),
        _speed(study, rows),
        _regimes(probes),
        _order(study, probes, semantics),
        _informed(study, probes),
        _solver(rows, main, last),
    ]
    others = [name for name in study.study.cells if name != main]
    lines += [_better(rows, name, max(study.study.cells[name].budgets), LEARNED, SYNCHRONOUS) for name in others]
    return table(["claim", "measured", "verdict"], lines)


def _better(rows: Sequence[Row], cell: str, steps: int, a: str, b: str, **way: Any) -> Line:
    """Held: the paired test over seeds says that a's distance is lower; contradicted: higher."""
    test = paired(*(by_seed(rows, cell=cell, variant=name, steps=steps, **way) for name in (a, b)))
    how = "".join(f", {word}" for word in (way.get("solver"), "guided" if way.get("guided") else None) if word)
    text = f"{a} better than {b} ({cell}, {steps:,} steps{how})"
    if test is None:
        return [text, MISSING, "not measured"]
    verdict = {"lower": "held", "higher": "contradicted"}.get(test.verdict, "undecided")
    p = "" if test.p is None else f", p = {test.p:.3f}"
    return [text, f"difference {test.mean:+.2f} over {len(test.differences)} seeds{p}", verdict]


def _speed(study: StudyConfig, rows: Sequence[Row]) -> Line:
    main = study.study.main
    budgets = study.study.cells[main].budgets
    learned, sfd = (curve(rows, budgets, cell=main, variant=name) for name in (LEARNED, SFD))
    text = f"learned reaches SFD's final value in {SPEEDUP:.0f} times fewer steps (held: {SPEEDUP / 2:g} times or more)"
    if not learned or not sfd:
        return [text, MISSING, "not measured"]
    steps = steps_to_reach(learned, sfd[-1][1])
    if steps is None:
        return [text, "not reached", "contradicted"]
    ratio = sfd[-1][0] / steps
    return [text, f"{ratio:.1f} times fewer", "held" if ratio >= SPEEDUP / 2 else "contradicted"]


def _regimes(probes: Sequence[Row]) -> Line:
    text = f"weak lambdas collapse to one curve (held: all within {ONE_CURVE} of tau^5, at full length, in every cell)"
    weak = [row for row in probes if row["probe"].startswith("weaker-")]
    if not weak:
        return [text, MISSING, "not measured"]
    far = max(from_extremal(row) for row in weak)
    count = sum(row["collapsed"] for row in weak)
    verdict = "held" if far <= ONE_CURVE else "contradicted"
    return [text, f"{count} of {len(weak)} collapsed, farthest {far:.3f}", verdict]


def _order(study: StudyConfig, probes: Sequence[Row], semantics: Sequence[Row]) -> Line:
    """Over the cells that differ in the encoder alone."""
    text = "the more of the texture semantics explain, the closer to the identity (held: one order, conditional cells)"
    alike = [name for name, cell in study.study.cells.items() if not cell.changes]
    alike = [name for name in alike if study.study.encoders[study.study.cells[name].encoder].shuffled is None]
    r2 = {row["encoder"]: row["r2_ridge"] for row in semantics}
    found = [
        row for row in probes if row["chosen"] and row["conditional"] and row["cell"] in alike and row["encoder"] in r2
    ]
    if len(found) < 2:
        return [text, MISSING, "not measured"]
    ordered = sorted(found, key=lambda row: r2[row["encoder"]])
    distances = [row["distance_from_collapse"] for row in ordered]
    shown = ", ".join(f"{row['encoder']} {row['distance_from_collapse']:.2f}" for row in ordered)
    if max(distances) - min(distances) < SAME_DISTANCE:
        return [text, f"by what they explain: {shown}", "undecided"]
    return [text, f"by what they explain: {shown}", "held" if distances == sorted(distances) else "contradicted"]


def _informed(study: StudyConfig, probes: Sequence[Row]) -> Line:
    """The control: as far from the intact cell's curve, at the same lambda, as two seeds are from each other?"""
    text = "what semantics tell of the texture shapes the schedule (held: shuffling moves it more than seeds do)"
    cells = {name: study.study.encoders[cell.encoder].shuffled for name, cell in study.study.cells.items()}
    shuffled = next((name for name, base in cells.items() if base is not None), None)
    found = {row["cell"]: row for row in probes if row["chosen"]}
    main = study.study.main
    seeds = [found.get(main), *(r for r in probes if r["cell"] == main and r["probe"].startswith("seed-"))]
    if shuffled not in found or main not in found or len(seeds) < 2:
        return [text, MISSING, "not measured"]
    if found[shuffled]["lambda"] != found[main]["lambda"]:
        return [text, f"lambda {found[shuffled]['lambda']:.3g} against {found[main]['lambda']:.3g}", "held"]
    moved, spread = between(found[shuffled], found[main]), widest([row for row in seeds if row is not None])
    assert spread is not None
    verdict = "held" if moved > spread else "contradicted"
    return [text, f"moved by {moved:.3f}, seeds differ by up to {spread:.3f}", verdict]


def _solver(rows: Sequence[Row], cell: str, steps: int) -> Line:
    text = "dopri5 needs no more evaluations under the learned than under the synchronous schedule (paired test)"
    sides = [by_seed(rows, "nfe", cell=cell, variant=name, steps=steps) for name in (LEARNED, SYNCHRONOUS)]
    test = paired(*sides)
    if test is None:
        return [text, MISSING, "not measured"]
    means = [sum(side.values()) / len(side) for side in sides]
    verdict = {"lower": "held", "higher": "contradicted"}.get(test.verdict, "undecided")
    return [text, f"{means[0]:.1f} evaluations against {means[1]:.1f}", verdict]
