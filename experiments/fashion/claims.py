"""The paper's claims against the rows: each with what was measured and a verdict by a rule that is stated."""

from __future__ import annotations

from collections.abc import Sequence

from design import StudyConfig
from stats import Row, by_seed, curve, from_extremal, paired, steps_to_reach
from tables import LEARNED, MISSING, OFFSET, SYNCHRONOUS, table

SFD = "offset-sfd"
SPEEDUP = 5.0
"""The paper's: SFD takes about so many times as long to reach what the learned schedule reaches."""
ONE_CURVE = 0.05
"""Collapsed curves count as one within this supremum distance; the identity is 0.53 from tau^5."""


def claims(study: StudyConfig, rows: Sequence[Row], probes: Sequence[Row], semantics: Sequence[Row]) -> str:
    """A line for each claim; held only by the rule in its own line."""
    main = study.study.main
    last = max(study.study.cells[main].budgets)
    lines = [_compare(rows, main, last, LEARNED, base) for base in (SYNCHRONOUS, SFD, OFFSET)]
    lines += [
        _compare(
            rows, main, last, "learned-exact", LEARNED, "the stop-gradient matters: exact Jacobian worse", "higher"
        ),
        _compare(rows, main, last, "collapsed", LEARNED, "collapse hurts", "higher"),
        _speed(study, rows),
        _regimes(probes),
        _order(study, probes, semantics),
        _solver(rows, main, last),
        *(_elsewhere(study, rows, cell) for cell in study.study.cells if cell != main),
    ]
    return table(["claim", "measured", "verdict"], lines)


def _compare(
    rows: Sequence[Row], cell: str, steps: int, a: str, b: str, claim: str | None = None, expected: str = "lower"
) -> list[str]:
    """Held: the paired test over seeds says ``expected``; contradicted: it says the opposite."""
    test = paired(*(by_seed(rows, cell=cell, variant=name, steps=steps) for name in (a, b)))
    text = claim or f"{a} better than {b} ({cell}, {steps:,} steps)"
    if test is None:
        return [text, MISSING, "not measured"]
    found = test.verdict
    verdict = "held" if found == expected else "undecided" if found == "undecided" else "contradicted"
    p = "" if test.p is None else f", p = {test.p:.3f}"
    return [text, f"{a} − {b}: {test.mean:+.2f} over {len(test.differences)} seeds{p}", verdict]


def _speed(study: StudyConfig, rows: Sequence[Row]) -> list[str]:
    main = study.study.main
    budgets = study.study.cells[main].budgets
    learned, sfd = (curve(rows, budgets, cell=main, variant=name) for name in (LEARNED, SFD))
    text = f"learned reaches SFD's final value in a {SPEEDUP:.0f}th of the steps (held: within a factor of two)"
    if not learned or not sfd:
        return [text, MISSING, "not measured"]
    steps = steps_to_reach(learned, sfd[-1][1])
    if steps is None:
        return [text, "not reached", "contradicted"]
    ratio = sfd[-1][0] / steps
    return [text, f"{ratio:.1f} times fewer", "held" if ratio >= SPEEDUP / 2 else "contradicted"]


def _regimes(probes: Sequence[Row]) -> list[str]:
    text = f"weak lambdas collapse to one curve (held: all within {ONE_CURVE} of tau^5 at full length, in every cell)"
    weak = [row for row in probes if row["probe"].startswith("weaker-")]
    if not weak:
        return [text, MISSING, "not measured"]
    far = max(from_extremal(row) for row in weak)
    count = sum(row["collapsed"] for row in weak)
    verdict = "held" if far <= ONE_CURVE else "contradicted"
    return [text, f"{count} of {len(weak)} collapsed, farthest {far:.3f}", verdict]


def _order(study: StudyConfig, probes: Sequence[Row], semantics: Sequence[Row]) -> list[str]:
    text = "richer semantics (more of the texture explained) are closer to the identity (held: same order, conditional cells)"
    r2 = {row["encoder"]: row["r2_ridge"] for row in semantics}
    found = [
        (r2[row["encoder"]], row) for row in probes if row["chosen"] and row["conditional"] and row["encoder"] in r2
    ]
    if len(found) < 2:
        return [text, MISSING, "not measured"]
    ordered = [row for _, row in sorted(found, key=lambda pair: pair[0])]
    distances = [row["distance_from_collapse"] for row in ordered]
    shown = ", ".join(f"{row['encoder']} {row['distance_from_collapse']:.2f}" for row in ordered)
    return [text, f"by richness: {shown}", "held" if distances == sorted(distances) else "contradicted"]


def _solver(rows: Sequence[Row], cell: str, steps: int) -> list[str]:
    text = "learned schedules cost the adaptive solver no more than synchronous ones (held: paired test not higher)"
    sides = [by_seed(rows, "nfe", cell=cell, variant=name, steps=steps) for name in (LEARNED, SYNCHRONOUS)]
    test = paired(*sides)
    if test is None:
        return [text, MISSING, "not measured"]
    means = [sum(side.values()) / len(side) for side in sides]
    verdict = "contradicted" if test.verdict == "higher" else "held"
    return [text, f"{means[0]:.0f} evaluations against {means[1]:.0f}", verdict]


def _elsewhere(study: StudyConfig, rows: Sequence[Row], cell: str) -> list[str]:
    return _compare(rows, cell, max(study.study.cells[cell].budgets), LEARNED, SYNCHRONOUS)
