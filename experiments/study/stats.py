"""From rows to numbers: means over seeds, paired tests, steps to reach a value, distances between curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from scipy.stats import ttest_rel

from design import StudyConfig
from lwd.schedules import PolynomialCurve
from lwd.schedules.distance import curve_distance

Row = Mapping[str, Any]
BySeed = dict[int, float]

SYNCHRONOUS, OFFSET, SFD, COLLAPSED = "synchronous", "offset", "offset-sfd", "collapsed"
LEARNED, LEARNED_EXACT = "learned-stop", "learned-exact"
"""Variants, as ``compare.variants`` names them."""
FEWEST_SEEDS = 3
"""Fewer decide nothing."""


@dataclass(frozen=True)
class Paired:
    """a - b, seed by seed; ``p``: two-sided, of `scipy.stats.ttest_rel`; None for fewer than two seeds."""

    differences: tuple[float, ...]
    p: float | None

    @property
    def mean(self) -> float:
        """The mean difference."""
        return float(np.mean(self.differences))

    @property
    def verdict(self) -> str:
        """lower or higher where there are three at least, finite and of one sign, and p < 0.05 or all are the same."""
        few = len(self.differences) < FEWEST_SEEDS or not all(map(math.isfinite, self.differences))
        if few or len({np.sign(d) for d in self.differences}) > 1 or self.differences[0] == 0:
            return "undecided"
        if len(set(self.differences)) > 1 and (self.p is None or not self.p < 0.05):
            return "undecided"
        return "lower" if self.mean < 0 else "higher"


def by_seed(rows: Sequence[Row], value: str = "frechet", **wanted: Any) -> BySeed:
    """The value by seed, of the rows with the wanted entries; unguided and of the exact solver unless told."""
    wanted = {"guided": False, "exact": True} | wanted
    some = [row for row in rows if all(row[key] == entry for key, entry in wanted.items())]
    return {row["seed"]: row[value] for row in some if row[value] is not None}


def curve(
    rows: Sequence[Row], budgets: Sequence[int], value: str = "frechet", **wanted: Any
) -> list[tuple[int, float]]:
    """(steps, mean over seeds) at the budgets that were measured."""
    found = [(steps, by_seed(rows, value, steps=steps, **wanted)) for steps in budgets]
    return [(steps, float(np.mean(list(values.values())))) for steps, values in found if values]


def complete(rows: Sequence[Row], cell: str, variants: Sequence[str]) -> tuple[list[int], list[Row]]:
    """The budgets at which every one of the variants was measured, and the rows of the seeds that have them all."""
    budgets = sorted({row["steps"] for row in rows if row["cell"] == cell})
    found = {steps: [by_seed(rows, cell=cell, variant=name, steps=steps) for name in variants] for steps in budgets}
    budgets = [steps for steps in budgets if all(found[steps])]
    seeds = [set(side) for steps in budgets for side in found[steps]]
    shared = set.intersection(*seeds) if seeds else set()
    return (budgets if shared else []), [row for row in rows if row["cell"] == cell and row["seed"] in shared]


def ratios(rows: Sequence[Row], cell: str, steps: int) -> list[float]:
    """Distance of the learned schedule over that of the synchronous one, by seed, of those that have both."""
    learned, base = (by_seed(rows, cell=cell, variant=name, steps=steps) for name in (LEARNED, SYNCHRONOUS))
    return [learned[seed] / base[seed] for seed in sorted(learned.keys() & base.keys())]


def paired(a: BySeed, b: BySeed) -> Paired | None:
    """a against b on the seeds that both have; None where there is none."""
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        return None
    differences = tuple(a[seed] - b[seed] for seed in seeds)
    if len(seeds) < 2 or len(set(differences)) == 1 or not all(map(math.isfinite, differences)):
        return Paired(differences, None)
    test = ttest_rel([a[seed] for seed in seeds], [b[seed] for seed in seeds])
    return Paired(differences, float(test.pvalue))


def steps_to_reach(points: Sequence[tuple[int, float]], target: float) -> float | None:
    """The steps at which a falling curve first reaches ``target``, straight lines between points on log-log axes.

    The first budget where it is reached there already: then it is an upper bound. None where it is never reached.
    """
    for (steps, value), (later, lower) in zip([*points[:1], *points], points, strict=False):
        if lower <= target:
            if value <= target:
                return float(steps)
            share = math.log(value / target) / math.log(value / lower)
            return math.exp(math.log(steps) + share * math.log(later / steps))
    return None


def cheapest_solver(study: StudyConfig, cell: str) -> str | None:
    """Of the cell's further solvers the one of the fewest steps, as rows name it; None where it has none."""
    ways = [study.study.solvers[name] for name in study.study.cells[cell].solvers]
    names = [(way["steps"], f"{way['solver']}{way['steps']}") for way in ways]
    return min(names)[1] if names else None


def controls(study: StudyConfig) -> list[tuple[str, str]]:
    """(a cell whose semantics are shuffled, the cell of the same settings whose semantics are intact)."""
    cells, encoders = study.study.cells, study.study.encoders
    return [
        (name, intact)
        for name, cell in cells.items()
        for intact, other in cells.items()
        if encoders[cell.encoder].shuffled == other.encoder
        and (cell.conditional, cell.changes) == (other.conditional, other.changes)
    ]


def chosen(probes: Sequence[Row]) -> dict[str, Row]:
    """The probe of each cell's weakest stable lambda; cells where every lambda collapsed have none."""
    return {row["cell"]: row for row in probes if row["chosen"]}


def probe_seeds(probes: Sequence[Row], cell: str) -> dict[int, Row]:
    """The chosen probe of a cell and those of further seeds at its lambda, by seed."""
    found = chosen(probes).get(cell)
    mine = [row for row in probes if row["cell"] == cell and row["probe"].startswith("seed-")]
    return {} if found is None else {r["seed"]: r for r in (found, *mine) if r["lambda"] == found["lambda"]}


def counted(number: int, what: str) -> str:
    """For instance 1 seed, 2 seeds."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def between(one: Row, other: Row) -> float:
    """The supremum over tau of the distance between two probes' curves, over the learned groups."""
    return max(curve_distance(_curve(one["rho"][g]), _curve(other["rho"][g])) for g in one["rho"])


def widest(rows: Sequence[Row]) -> float | None:
    """The largest `between` any two; None for fewer than two."""
    return max((between(a, b) for a, b in combinations(rows, 2)), default=None)


def from_extremal(row: Row) -> float:
    """The supremum over tau of the distance to tau^(M+1)."""
    tau = torch.linspace(0, 1, 1001, dtype=torch.float64)
    curves = [_curve(rho) for rho in row["rho"].values()]
    return max(float((c(tau)[0] - tau ** (c.degree + 1)).abs().max()) for c in curves)


def rate_squared(row: Row) -> float:
    """The mean over tau of t'^2 of a probe's curve, the largest of the learned groups: 1 is the least there is."""
    tau = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    return max(float(_curve(rho)(tau)[1].square().mean()) for rho in row["rho"].values())


def points_of(row: Row) -> dict[str, tuple[list[float], list[float]]]:
    """tau and t(tau) of each learned group, for figures."""
    tau = torch.linspace(0, 1, 101)
    return {g: (tau.tolist(), _curve(rho)(tau)[0].tolist()) for g, rho in row["rho"].items()}


def _curve(rho: Sequence[float]) -> PolynomialCurve:
    return PolynomialCurve.from_rho(torch.tensor(rho)).requires_grad_(False)
