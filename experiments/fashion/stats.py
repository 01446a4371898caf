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

from lwd.probe.early import curve_distance
from lwd.schedules import PolynomialCurve

Row = Mapping[str, Any]
BySeed = dict[int, float]


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
        """lower or higher where there are three seeds at least, all say the same, and p is below 0.05."""
        few = len(self.differences) < 3
        if self.p is None or few or self.p >= 0.05 or len({d > 0 for d in self.differences}) > 1:
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


def paired(a: BySeed, b: BySeed) -> Paired | None:
    """a against b on the seeds that both have; None where there is none."""
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        return None
    differences = tuple(a[seed] - b[seed] for seed in seeds)
    if len(seeds) < 2 or len(set(differences)) == 1:
        return Paired(differences, None)
    test = ttest_rel([a[seed] for seed in seeds], [b[seed] for seed in seeds])
    return Paired(differences, float(test.pvalue))


def steps_to_reach(points: Sequence[tuple[int, float]], target: float) -> float | None:
    """The steps at which a falling curve first reaches ``target``, straight lines between points on log-log axes.

    At the first budget for a target above the curve; None where it is never reached.
    """
    for (steps, value), (later, lower) in zip([points[0], *points], points, strict=False):
        if lower <= target:
            if value <= target:
                return float(steps)
            share = math.log(value / target) / math.log(value / lower)
            return math.exp(math.log(steps) + share * math.log(later / steps))
    return None


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
