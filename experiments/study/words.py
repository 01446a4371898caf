"""The discussion, in words: each paragraph is chosen by the rows and filled with their numbers, or left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise

import numpy as np

from design import EXACT, StudyConfig
from stats import (
    FEWEST_POINTS,
    LEARNED,
    SFD,
    SYNCHRONOUS,
    Row,
    by_seed,
    cheapest_solver,
    chosen,
    complete,
    controls,
    counted,
    curve,
    paired,
    probe_seeds,
    rank_correlation,
    ratios,
    steps_to_reach,
)
from tables import gains, stiffnesses
from words_prediction import prediction_words, shown_rank

FLAT = 0.02
"""Ratios of distances that differ by no more are called the same."""
IDENTITY = 0.9
"""A curve that is so far from collapse is called near the identity."""


def discussion(
    study: StudyConfig,
    rows: Sequence[Row],
    probes: Sequence[Row],
    semantics: Sequence[Row],
    predictions: Sequence[Row],
) -> str:
    """Paragraphs of what there is to say."""
    parts = [
        _pays(study, rows),
        _stop_gradient(probes, predictions),
        _control(study, probes),
        _weight(study, rows, probes),
        prediction_words(study, probes, predictions),
        _where(study, rows, semantics),
        _solvers(study, rows),
    ]
    return "\n\n".join(part for part in parts if part)


def _pays(study: StudyConfig, rows: Sequence[Row]) -> str:
    main = study.study.main
    budgets, some = complete(rows, main, (SYNCHRONOUS, LEARNED))
    by_budget = [ratios(some, main, steps) for steps in budgets]
    if len(budgets) < 2 or not np.isfinite(np.concatenate(by_budget)).all():
        return ""
    means = [float(np.mean(each)) for each in by_budget]
    shown = ", ".join(f"{ratio:.2f}" for ratio in means)
    steps = ", ".join(f"{each:,}" for each in budgets)
    return (
        f"**Does the learned schedule pay?** In cell {main} the Fréchet distance under the learned schedule over that "
        f"under the synchronous one is {shown} at {steps} steps ({counted(len(by_budget[0]), 'seed')}): "
        f"{_trend(means)}."
    ) + _against_sfd(study, rows)


def _trend(values: Sequence[float]) -> str:
    """Only moves by more than FLAT count."""
    moves = [later - earlier for earlier, later in pairwise(values)]
    whole = values[-1] - values[0]
    if max(moves) < -FLAT:
        return "it falls at every step of the way, so that at a longer budget the answer may be another one"
    if min(moves) > FLAT:
        return "it rises at every step of the way"
    if abs(whole) <= FLAT:
        return f"there is no trend (the first and the last differ by no more than {FLAT})"
    return f"it {'falls' if whole < 0 else 'rises'} from the first to the last, though not at every step"


def _against_sfd(study: StudyConfig, rows: Sequence[Row]) -> str:
    """Empty where not both have the last budget."""
    main = study.study.main
    last = max(study.study.cells[main].budgets)
    budgets, some = complete(rows, main, (LEARNED, SFD))
    learned, sfd = (curve(some, budgets, cell=main, variant=variant) for variant in (LEARNED, SFD))
    if last not in budgets or not np.isfinite([*learned, *sfd]).all():
        return ""
    target = sfd[-1][1]
    reached = steps_to_reach(learned, target)
    if reached is None:
        when = "the learned one does not reach its final value"
    elif reached <= budgets[0]:
        when = f"the learned one reaches its final value within the first budget ({budgets[0]:,} of {last:,} steps)"
    else:
        when = f"the learned one reaches its final value at {reached:,.0f} of {last:,} steps"
    return (
        f" SFD's offset with SFD's own objective ends at {target / learned[-1][1]:.2f} times the learned schedule's "
        f"distance; {when}. In the paper it does so in about a fifth of the steps."
    )


def _stop_gradient(probes: Sequence[Row], predictions: Sequence[Row]) -> str:
    """Each cell's exact probe against the stopped one of the same cell and lambda."""
    stopped = chosen(probes)
    exact = {row["cell"]: row for row in probes if row["probe"] == EXACT and row["cell"] in stopped}
    pairs = [(row, stopped[cell]) for cell, row in exact.items() if row["lambda"] == stopped[cell]["lambda"]]
    if not pairs:
        return ""
    text = (
        "**What the stop-gradient does.** Differentiating t' (the exact Jacobian) is a change of variables: it takes "
        "the texture loss's slope in its *own* time out of the schedule's gradient and puts its slope in the "
        "*semantics'* time there. So what pulls the exact schedule is how much clean semantics help the texture, "
        "less how much noisy texture harms the semantics; what pulls the stopped one is that harm and the texture "
        "loss's own slope, which is there whether or not the semantics know anything."
    )
    if predictions:
        drives = [row["drives"] for row in predictions]
        stop, full = ([-d[term] - d["harm"] for d in drives] for term in ("own", "help"))
        text += (
            " On the Gaussian with the latents' moments, going from the synchronous to the extremal schedule gains "
            f"{_range(stop)} of loss by the stopped account, and {_range(full)} by the exact one (a negative number is "
            "a loss)."
        )
    return text + _exact_against_stopped(pairs) + _weaker_exact(probes, stopped)


def _exact_against_stopped(pairs: Sequence[tuple[Row, Row]]) -> str:
    count = counted(len(pairs), "cell")
    exact, stopped = (_distances(side) for side in zip(*pairs, strict=True))
    if min(exact) >= IDENTITY > max(stopped):
        return (
            f" At the same lambda the exact schedule stays near the identity (distance from collapse {_range(exact)}, "
            f"{count}) where the stopped one leaves it ({_range(stopped)})."
        )
    farther = sum(a > b for a, b in zip(exact, stopped, strict=True))
    return (
        f" At the same lambda the distance from collapse is {_range(exact)} with the exact Jacobian and "
        f"{_range(stopped)} with the stopped one ({count}); the exact one is the farther in {farther}."
    )


def _weaker_exact(probes: Sequence[Row], stopped: Mapping[str, Row]) -> str:
    """The exact Jacobian at less lambda, by how many times less."""
    by_times: dict[str, list[float]] = {}
    for row in probes:
        if row["probe"].startswith(f"{EXACT}-weaker") and row["cell"] in stopped:
            times = f"{stopped[row['cell']]['lambda'] / row['lambda']:.3g}"
            by_times.setdefault(times, []).append(row["distance_from_collapse"])
    if not by_times:
        return ""
    shown = "; ".join(
        f"{_range(each)} at {times} times less ({counted(len(each), 'cell')})" for times, each in by_times.items()
    )
    stays = min(min(each) for each in by_times.values()) >= IDENTITY
    return f" With the exact Jacobian and less lambda it {'stays near the identity' if stays else 'is'}: {shown}."


def _control(study: StudyConfig, probes: Sequence[Row]) -> str:
    """Cells whose semantics are shuffled, against the ones that they were made of."""
    said = []
    for shuffled, intact in controls(study):
        sides = [list(probe_seeds(probes, cell).values()) for cell in (shuffled, intact)]
        if all(sides):
            lambdas = [f"{side[0]['lambda']:.3g}" for side in sides]
            distances = [f"{_range(_distances(side))} ({counted(len(side), 'probe seed')})" for side in sides]
            said.append(
                f"{shuffled} leads to lambda {lambdas[0]} and distances from collapse of {distances[0]}; {intact}, "
                f"whose semantics are intact, to {lambdas[1]} and {distances[1]}."
            )
    if not said:
        return ""
    return (
        "**The control.** Semantics that were shuffled among the images of a class say nothing of the texture beyond "
        "it. Cell " + " Cell ".join(said)
    )


def _weight(study: StudyConfig, rows: Sequence[Row], probes: Sequence[Row]) -> str:
    last = max(study.study.cells[study.study.main].budgets)
    points = []
    for rate, _, variant in stiffnesses(study, rows, probes):
        nfe = list(by_seed(rows, "nfe", cell=study.study.main, variant=variant, steps=last).values())
        if nfe and np.isfinite(nfe).all():
            points.append((rate, nfe, variant))
    if len(points) < 3:
        return ""
    shown = ", ".join(f"{variant} {np.mean(nfe):.0f} at {rate:.2f}" for rate, nfe, variant in points)
    return (
        "**What lambda does to solver cost.** Lambda weighs the mean of t'^2 |v|^2: how far the solver has to carry a "
        f"sample in a given time. {_direction([(rate, nfe) for rate, nfe, _ in points])}: {shown} (evaluations of the "
        "network per sample, at the mean of t'^2)."
    )


def _direction(points: Sequence[tuple[float, Sequence[float]]]) -> str:
    """In words, of (stiffness, evaluations by seed): a difference counts where it exceeds the range over seeds."""
    if min(len(nfe) for _, nfe in points) < 2:
        return "With one seed it cannot be told whether evaluations go by it"
    seeds = max(max(nfe) - min(nfe) for _, nfe in points)
    moves = [np.mean(b) - np.mean(a) for (less, a), (more, b) in combinations(sorted(points), 2) if less < more]
    rises, falls = sum(move > seeds for move in moves), sum(move < -seeds for move in moves)
    if rises and falls:
        return "The evaluations that dopri5 takes do not go by it alone"
    if not rises and not falls:
        return f"The evaluations that dopri5 takes differ no more than between seeds (by {seeds:.1f})"
    whole = "" if max(rises, falls) == len(moves) else ", where they differ by more than between seeds"
    return f"The stiffer the curve, the {'more' if rises else 'fewer'} evaluations dopri5 takes{whole}"


def _where(study: StudyConfig, rows: Sequence[Row], semantics: Sequence[Row]) -> str:
    found = [gain for gain in gains(study, rows, semantics) if gain.steps == max(study.study.cells[gain.cell].budgets)]
    found = [gain for gain in found if np.isfinite([gain.r2, *gain.ratios]).all()]
    if len(found) < 3:
        return ""
    found.sort(key=lambda gain: float(np.mean(gain.ratios)))
    shown = ", ".join(f"{gain.cell} {np.mean(gain.ratios):.2f}" for gain in found)
    sure = sum(max(gain.ratios) < 1 for gain in found)
    if np.mean(found[0].ratios) >= 1:
        best = f"Nowhere: it is 1 or more on average in all {len(found)} cells"
    else:
        best = f"It is below 1 for every seed in {sure} of {len(found)} cells; the best is {found[0].cell}"
    distinct: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    for gain in found:
        cell = study.study.cells[gain.cell]
        distinct.setdefault((cell.encoder, cell.conditional), []).append((gain.r2, float(np.mean(gain.ratios))))
    points = [np.mean(each, axis=0).tolist() for each in distinct.values()]
    text = (
        "**Where does it pay?** Distance under the learned over that under the synchronous schedule, at each cell's "
        f"last budget: {shown}. {best}."
    )
    rank = rank_correlation([r2 for r2, _ in points], [ratio for _, ratio in points])
    if len(points) < FEWEST_POINTS or rank is None or rank[1] is None:
        return text
    related = "is related to it" if rank[1] < 0.05 else "does not tell where it pays"
    once = "" if len(points) == len(found) else ", those of the same encoder and classes counted once"
    return (
        f"{text} What the semantics explain of the texture {related} (rank correlation {shown_rank(rank)} by "
        f"permutation, {len(points)} cells{once})."
    )


def _solvers(study: StudyConfig, rows: Sequence[Row]) -> str:
    main, last = study.study.main, max(study.study.cells[study.study.main].budgets)
    solver = cheapest_solver(study, main)
    added = {}
    for variant in study.compare.variants if solver else ():
        fine = by_seed(rows, cell=main, variant=variant, steps=last)
        coarse = by_seed(rows, cell=main, variant=variant, steps=last, solver=solver, exact=False)
        test = paired(coarse, fine)
        if test is not None and math.isfinite(test.mean):
            added[variant] = test.mean
    if not added:
        return ""
    text = f"**Coarse solvers.** What {solver} adds to dopri5's Fréchet distance at {last:,} steps: " + ", ".join(
        f"{variant} {mean:+.1f}" for variant, mean in added.items()
    )
    if min(added.values()) >= 0:
        return text + "."
    return (
        f"{text}. A negative number is no mistake: a coarse solver's error can move samples towards the data where the "
        "network, being short of training, does not."
    )


def _distances(rows: Sequence[Row]) -> list[float]:
    return [row["distance_from_collapse"] for row in rows]


def _range(values: Sequence[float]) -> str:
    low, high = (f"{value:.3g}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
