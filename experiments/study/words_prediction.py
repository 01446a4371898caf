"""The discussion's paragraph on the prediction: how far it is off, beside what a constant would say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from design import EXACT, STOP, StudyConfig
from stats import FEWEST_POINTS, Row, chosen, counted, rank_correlation

MARGIN = 0.02
"""A measured distance may be so far beyond two predicted ones and still count as between them."""
FEWEST_CELLS = 4
"""Fewer have no rank correlation worth printing."""


@dataclass(frozen=True)
class Compared:
    """A probe's distance from collapse, as measured and as predicted with the ideal and with the shrunk denoiser."""

    cell: str
    weight: float
    jacobian: str
    measured: float
    ideal: float
    shrunk: float


def compared(probes: Sequence[Row], predictions: Sequence[Row]) -> list[Compared]:
    """Every predicted probe that was measured."""
    measured = {(row["cell"], row["probe"]): row["distance_from_collapse"] for row in probes}
    return [
        Compared(row["cell"], one["lambda"], one["jacobian"], found, one["ideal"], one["shrunk"])
        for row in predictions
        for one in row["probes"]
        if (found := measured.get((row["cell"], one["probe"]))) is not None
    ]


def prediction_words(study: StudyConfig, probes: Sequence[Row], predictions: Sequence[Row]) -> str:
    """Of cells that share data and classes, and so the prediction, the first one counts."""
    groups: dict[tuple[str, bool], list[Row]] = {}
    for row in predictions:
        groups.setdefault((row["data"], row["conditional"]), []).append(row)
    stable = chosen(probes)
    once = [next((row for row in rows if row["cell"] in stable), rows[0]) for rows in groups.values()]
    found = compared(probes, once)
    stop = [one for one in found if one.jacobian == STOP and one.measured >= study.sweep.collapsed_below]
    said = [_errors(stop), _weakest(study, probes, once), _across_cells(stop)]
    exact = [one for one in found if one.jacobian == EXACT]
    if exact:
        ideal, shrunk = (max(abs(getattr(one, d) - one.measured) for one in exact) for d in ("ideal", "shrunk"))
        said.append(
            f"With the exact Jacobian the largest error is {ideal:.2f} (ideal) and {shrunk:.2f} (shrunk), of "
            f"{counted(len(exact), 'probe')}."
        )
    if not any(said):
        return ""
    said.append(_shared([rows for rows in groups.values() if len(rows) > 1], stable))
    return (
        "**What predicts the schedule.** The latents' means and covariance, without training anything: Algorithm 1 on "
        "the Gaussian that has them (within classes, where the network sees classes). It is run with two denoisers: "
        "the ideal one of the flow loss alone, and the one that minimises the probe's whole loss, which the kinetic "
        "term shrinks. The probe trains the latter in the end; stopped after some hundred steps, it should end between "
        "the two. " + " ".join(part for part in said if part)
    )


def _errors(stop: Sequence[Compared]) -> str:
    if not stop:
        return ""
    measured = np.array([one.measured for one in stop])
    ideal, shrunk = (np.array([getattr(one, d) for one in stop]) - measured for d in ("ideal", "shrunk"))
    constant = np.abs(measured - measured.mean()).mean()
    beside = f"; always saying the mean of the measured ones, {measured.mean():.2f}, has an error of {constant:.2f}"
    beside = beside if len(stop) > 1 else ""
    inside = sum(_between(one.measured, one.ideal, one.shrunk) for one in stop)
    apart = np.abs(ideal - shrunk).mean()
    cells = len({one.cell for one in stop})
    return (
        f"Over the {counted(len(stop), 'probe')} with the stop-gradient that did not collapse "
        f"({counted(cells, 'cell')}), predicted less measured distance from collapse is {ideal.mean():+.2f} on average "
        f"with the ideal denoiser (mean absolute error {np.abs(ideal).mean():.2f}) and {shrunk.mean():+.2f} with the "
        f"shrunk one ({np.abs(shrunk).mean():.2f}){beside}. {inside} of {len(stop)} lie between the two "
        f"predictions (give or take {MARGIN}), which are {apart:.2f} apart on average."
    )


def _between(measured: float, a: float, b: float) -> bool:
    return min(a, b) - MARGIN <= measured <= max(a, b) + MARGIN


def _weakest(study: StudyConfig, probes: Sequence[Row], predictions: Sequence[Row]) -> str:
    weights = {cell: row["lambda"] for cell, row in chosen(probes).items()}
    pairs = [(row["weakest_stable"], weights[row["cell"]]) for row in predictions if row["cell"] in weights]
    if not pairs:
        return ""
    common = Counter(found for _, found in pairs).most_common(1)[0][0]

    def near(weight: float | None, found: float) -> bool:
        return weight is not None and max(weight / found, found / weight) <= 1.01 * study.sweep.resolution

    ideal, shrunk = (sum(near(said[which], found) for said, found in pairs) for which in ("ideal", "shrunk"))
    same = sum(near(common, found) for _, found in pairs)
    return (
        f"The weakest stable lambda that the search found is within one step of the grid of the ideal denoiser's in "
        f"{ideal} of {counted(len(pairs), 'cell')}, and of the shrunk one's in {shrunk}; always saying {common:.3g}, "
        f"the most frequent one, is in {same}."
    )


def _across_cells(stop: Sequence[Compared]) -> str:
    """At the lambda that most cells share (the weakest of several): does the prediction tell cells apart?"""
    by_weight: dict[float, dict[str, Compared]] = {}
    for one in stop:
        by_weight.setdefault(one.weight, {}).setdefault(one.cell, one)
    weight = max(by_weight, key=lambda w: (len(by_weight[w]), -w), default=None)
    if weight is None or len(by_weight[weight]) < FEWEST_CELLS:
        return ""
    some = list(by_weight[weight].values())
    measured = [one.measured for one in some]
    ranks = {d: rank_correlation([getattr(one, d) for one in some], measured) for d in ("ideal", "shrunk")}
    shown = [f"{shown_rank(rank)} ({name})" for name, rank in ranks.items()]
    means = [float(np.mean([getattr(one, d) for one in some])) for d in ("measured", *ranks)]
    level = _between(*means)
    apart = [name for name, rank in ranks.items() if rank and rank[0] > 0 and rank[1] is not None and rank[1] < 0.05]
    if len(some) < FEWEST_POINTS:
        tells = ", and these are too few cells to say whether it tells them apart"
    elif apart:
        tells = f" and tells cells apart with the {' and the '.join(apart)} denoiser"
    else:
        tells = f" {'but' if level else 'and'} does not predict the differences between cells"
    return (
        f"At lambda {weight:.3g}, in {len(some)} cells, the rank correlation of predicted and measured distances is "
        f"{' and '.join(shown)}. There the prediction {'has the level right' if level else 'misses the level'} (mean "
        f"{means[0]:.2f}, predicted {means[1]:.2f} and {means[2]:.2f}){tells}."
    )


def _shared(groups: Sequence[Sequence[Row]], found: Mapping[str, Row]) -> str:
    """What the prediction cannot know: cells of the same data and classes whose networks differ."""
    said = [
        ", ".join(f"{row['cell']} ({found[row['cell']]['lambda']:.3g})" for row in rows if row["cell"] in found)
        for rows in groups
        if sum(row["cell"] in found for row in rows) > 1
    ]
    if not said:
        return ""
    return (
        "Cells that share data and classes share the prediction, and only the first of them is counted here; the "
        f"lambdas found are: {'; '.join(said)}."
    )


def shown_rank(rank: tuple[float, float | None] | None) -> str:
    """A rank correlation in words, with its p where there is one."""
    if rank is None:
        return "undefined"
    return f"{rank[0]:+.2f}" if rank[1] is None else f"{rank[0]:+.2f}, p = {rank[1]:.3f}"
