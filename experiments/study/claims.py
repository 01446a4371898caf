"""The paper's claims against the rows: each with what was measured and a verdict by a rule that is stated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from design import StudyConfig
from stats import (
    COLLAPSED,
    FEWEST_SEEDS,
    LEARNED,
    LEARNED_EXACT,
    OFFSET,
    SFD,
    SYNCHRONOUS,
    Row,
    between,
    by_seed,
    cheapest_solver,
    chosen,
    complete,
    controls,
    counted,
    curve,
    from_extremal,
    paired,
    probe_seeds,
    steps_to_reach,
)
from tables import MISSING, table

BASELINES = (SYNCHRONOUS, SFD, OFFSET)
SPEEDUP = 5.0
"""The paper's: SFD takes about so many times as long to reach what the learned schedule reaches."""
ONE_CURVE = 0.05
"""Collapsed curves count as one within this supremum distance; the identity is 0.53 from tau^5."""
SAME_DISTANCE = 0.05
"""Distances from collapse that differ by no more say nothing of an order, however little seeds differ."""
FEWEST_CELLS = 3
"""Fewer have no order to speak of."""

Line = list[str]


def claims(study: StudyConfig, rows: Sequence[Row], probes: Sequence[Row], semantics: Sequence[Row]) -> str:
    """A line for each claim. Comparisons: held or contradicted where the paired test says so, else undecided."""
    main = study.study.main
    cell = study.study.cells[main]
    first, last = min(cell.budgets), max(cell.budgets)
    run = cell.variants or tuple(study.compare.variants)
    bases, rest = ([base for base in some if base in run] for some in (BASELINES, (LEARNED_EXACT, COLLAPSED)))
    lines = [_better(rows, main, steps, LEARNED, base) for steps in dict.fromkeys((first, last)) for base in bases]
    lines += [_better(rows, main, last, LEARNED, base, guided=True) for base in bases if cell.guided]
    solver = cheapest_solver(study, main)
    if solver is not None:
        lines.append(_better(rows, main, last, LEARNED, SYNCHRONOUS, solver=solver, exact=False))
    lines += [
        *(_better(rows, main, last, LEARNED, other) for other in rest),
        _speed(study, rows),
        _regimes(probes),
        _order(study, probes, semantics),
        *(_informed(probes, *pair) for pair in controls(study)),
        _solver(rows, main, last),
    ]
    others = [name for name, one in study.study.cells.items() if name != main and one.seeds]
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
    return [text, f"difference {test.mean:+.2f} over {counted(len(test.differences), 'seed')}{p}", verdict]


def _speed(study: StudyConfig, rows: Sequence[Row]) -> Line:
    """Over the seeds and budgets that both have. Where the first budget suffices, the ratio is a lower bound."""
    main = study.study.main
    last = max(study.study.cells[main].budgets)
    text = f"learned reaches SFD's final value in {SPEEDUP:.0f} times fewer steps (held: {SPEEDUP / 2:g} times or more)"
    budgets, some = complete(rows, main, (LEARNED, SFD))
    learned, sfd = (curve(some, budgets, cell=main, variant=name) for name in (LEARNED, SFD))
    finite = all(math.isfinite(value) for _, value in [*learned, *sfd])
    if last not in budgets or not finite:
        return [text, MISSING, "not measured"]
    steps = steps_to_reach(learned, sfd[-1][1])
    if steps is None:
        return [text, "not reached", "contradicted"]
    ratio, bound = last / steps, steps <= budgets[0]
    shown = f"{'at least ' if bound else ''}{ratio:.1f} times fewer"
    return [text, shown, "held" if ratio >= SPEEDUP / 2 else "undecided" if bound else "contradicted"]


def _regimes(probes: Sequence[Row]) -> Line:
    text = f"weak lambdas collapse to one curve (held: all collapsed, at full length, and within {ONE_CURVE} of tau^5)"
    weak = [row for row in probes if row["probe"].startswith("weaker-")]
    if not weak:
        return [text, MISSING, "not measured"]
    far = max(from_extremal(row) for row in weak)
    count, cells = sum(row["collapsed"] for row in weak), len({row["cell"] for row in weak})
    verdict = "held" if count == len(weak) and far <= ONE_CURVE else "contradicted"
    return [text, f"{count} of {len(weak)} collapsed, in {counted(cells, 'cell')}; farthest {far:.3f}", verdict]


def _order(study: StudyConfig, probes: Sequence[Row], semantics: Sequence[Row]) -> Line:
    """Over the conditional cells that differ in the encoder alone, by what it explains beyond the class."""
    text = "the more of the texture semantics explain, the closer to the identity (held: in this order, beyond seeds)"
    r2 = {row["encoder"]: row["r2_given_label"] for row in semantics}
    alike = {name for name, cell in study.study.cells.items() if cell.conditional and not cell.changes}
    alike = {name for name in alike if study.study.encoders[study.study.cells[name].encoder].shuffled is None}
    found = [row for name, row in chosen(probes).items() if name in alike and row["encoder"] in r2]
    if len(found) < FEWEST_CELLS:
        return [text, MISSING, "not measured"]
    found.sort(key=lambda row: r2[row["encoder"]])
    distances = [row["distance_from_collapse"] for row in found]
    same = max(SAME_DISTANCE, _range(list(probe_seeds(probes, study.study.main).values())))
    shown = ", ".join(f"{row['encoder']} {row['distance_from_collapse']:.2f}" for row in found)
    shown = f"by what they explain: {shown}; less than {same:.2f} is no difference"
    if len({row["lambda"] for row in found}) > 1:
        shown += "; lambda " + ", ".join(f"{row['lambda']:.3g}" for row in found)
    pairs = [(a, b) for a, b in combinations(found, 2) if r2[a["encoder"]] < r2[b["encoder"]]]
    if any(
        _range(pair) > same and pair[1]["distance_from_collapse"] < pair[0]["distance_from_collapse"] for pair in pairs
    ):
        return [text, shown, "contradicted"]
    clear = any(_range(pair) > same for pair in pairs) and distances == sorted(distances)
    return [text, shown, "held" if clear else "undecided"]


def _informed(probes: Sequence[Row], shuffled: str, intact: str) -> Line:
    """The control: are its curves farther from the intact cell's than that one's seeds are from each other?"""
    text = (
        f"what semantics tell of the texture shapes the schedule ({shuffled} against {intact}; held: every "
        "seed's curve moves farther than any two intact seeds are apart)"
    )
    without, with_ = (probe_seeds(probes, cell) for cell in (shuffled, intact))
    if not without or not with_:
        return [text, MISSING, "not measured"]
    weights = [next(iter(side.values()))["lambda"] for side in (without, with_)]
    if weights[0] != weights[1]:
        return [text, f"lambda {weights[0]:.3g} against {weights[1]:.3g}", "undecided"]
    seeds = sorted(without.keys() & with_.keys())
    if not seeds:
        return [text, MISSING, "not measured"]
    moved = [between(without[seed], with_[seed]) for seed in seeds]
    apart = [between(a, b) for a, b in combinations(with_.values(), 2)]
    shown = f"moved by {_shown(moved)} over {counted(len(seeds), 'seed')}"
    shown += f"; intact seeds are {_shown(apart)} apart" if apart else ""
    if len(seeds) < FEWEST_SEEDS:
        return [text, shown, "undecided"]
    if min(moved) > max(apart):
        return [text, shown, "held"]
    return [text, shown, "contradicted" if np.mean(moved) <= np.mean(apart) else "undecided"]


def _solver(rows: Sequence[Row], cell: str, steps: int) -> Line:
    text = "dopri5 needs no more evaluations under the learned than under the synchronous schedule (paired test)"
    sides = [by_seed(rows, "nfe", cell=cell, variant=name, steps=steps) for name in (LEARNED, SYNCHRONOUS)]
    test = paired(*sides)
    if test is None:
        return [text, MISSING, "not measured"]
    means = [sum(side.values()) / len(side) for side in sides]
    verdict = {"lower": "held", "higher": "contradicted"}.get(test.verdict, "undecided")
    return [text, f"{means[0]:.1f} evaluations against {means[1]:.1f}", verdict]


def _range(rows: Sequence[Row]) -> float:
    """By how much distances from collapse differ at most; 0 for none."""
    distances = [row["distance_from_collapse"] for row in rows]
    return max(distances, default=0.0) - min(distances, default=0.0)


def _shown(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} on average ({min(values):.3f} to {max(values):.3f})"
