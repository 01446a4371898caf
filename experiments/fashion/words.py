"""The discussion, in words: each paragraph is chosen by the rows and filled with their numbers, or left out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.stats import spearmanr

from design import EXACT, StudyConfig
from stats import Row, by_seed, curve, paired, steps_to_reach
from tables import LEARNED, SFD, SYNCHRONOUS, gains, stiffnesses

FLAT = 0.02
"""Ratios of distances that differ by less are called the same."""
STIFF = "The stiffer the curve, the more evaluations dopri5 takes"
NOT_STIFF = "The evaluations that dopri5 takes do not go by it alone"


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
        _weight(study, rows, probes),
        _predicted(study, probes, predictions),
        _where(study, rows, semantics),
        _solvers(study, rows),
    ]
    return "\n\n".join(part for part in parts if part)


def _pays(study: StudyConfig, rows: Sequence[Row]) -> str:
    main = study.study.main
    budgets = study.study.cells[main].budgets
    base, learned, sfd = (curve(rows, budgets, cell=main, variant=v) for v in (SYNCHRONOUS, LEARNED, SFD))
    if not base or [steps for steps, _ in learned] != [steps for steps, _ in base]:
        return ""
    ratios = [mine / other for (_, mine), (_, other) in zip(learned, base, strict=True)]
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    steps = ", ".join(f"{each:,}" for each, _ in base)
    if all(later < earlier for earlier, later in pairwise(ratios)):
        trend = "it falls at every step of the way, so that at a longer budget the answer may be another one"
    elif ratios[-1] < ratios[0] - FLAT:
        trend = "it falls from the first to the last, though not at every step"
    elif ratios[-1] > ratios[0] + FLAT:
        trend = "it rises with training"
    else:
        trend = "there is no trend"
    text = (
        f"**Does the learned schedule pay?** In cell {main} the Fréchet distance under the learned schedule over that "
        f"under the synchronous one is {shown} at {steps} steps (means of seeds): {trend}."
    )
    if sfd:
        last = f"{sfd[-1][1] / learned[-1][1]:.2f}"
        reached = steps_to_reach(learned, sfd[-1][1])
        more = "is not reached" if reached is None else f"is reached at {reached:,.0f} of {sfd[-1][0]:,} steps"
        text += (
            f" SFD's offset with SFD's own objective is at {last} of the learned schedule's distance in the end; its "
            f"final value {more} by the learned one. In the paper it is the learned schedule that is ahead, by 5 times."
        )
    return text


def _stop_gradient(probes: Sequence[Row], predictions: Sequence[Row]) -> str:
    exact = [row for row in probes if row["probe"] == EXACT]
    if not exact or not predictions:
        return ""
    own, help_, harm = ([row["drives"][name] for row in predictions] for name in ("own", "help", "harm"))
    stop = [a + b for a, b in zip(own, harm, strict=True)]
    full = [a + b for a, b in zip(help_, harm, strict=True)]
    weaker = [row for row in probes if row["probe"].startswith(f"{EXACT}-weaker")]
    text = (
        "**What the stop-gradient does.** Differentiating t' (the exact Jacobian) is a change of variables: it takes "
        "the texture loss's slope in its *own* time out of the schedule's gradient and puts its slope in the "
        "*semantics'* time there. So what pulls the exact schedule is how much clean semantics help the texture, "
        "less how much noisy texture harms the semantics; what pulls the stopped one is that harm and the texture "
        "loss's own slope, which is there whether or not the semantics know anything. On the Gaussian with the "
        f"latents' moments, going from the synchronous to the extremal schedule gains {_range([-x for x in stop])} of "
        f"loss by the stopped account, and {_range([-x for x in full])} by the exact one (a negative number is a "
        "loss). Accordingly the exact schedule stays near the identity in every cell (distance "
        f"{_range(_distances(exact))}) where the stopped one, at the same lambda, leaves it."
    )
    if weaker:
        times = max(float(row["probe"].rpartition("-")[2]) for row in weaker)
        text += (
            f" A lambda of its own does not change that: at {times:g} times less it is at {_range(_distances(weaker))}."
        )
    return text + _control(probes)


def _control(probes: Sequence[Row]) -> str:
    """The cell whose semantics are shuffled, against the one that it was made of."""
    found = {row["cell"]: row for row in probes if row["chosen"]}
    if "shuffled" not in found or "trained" not in found:
        return ""
    shuffled, intact = found["shuffled"], found["trained"]
    return (
        " The control: semantics that were shuffled among images of a class, and so say nothing of the texture beyond "
        f"it, lead to lambda {shuffled['lambda']:.3g} and a distance from collapse of "
        f"{shuffled['distance_from_collapse']:.2f}; intact ones to {intact['lambda']:.3g} and "
        f"{intact['distance_from_collapse']:.2f}."
    )


def _weight(study: StudyConfig, rows: Sequence[Row], probes: Sequence[Row]) -> str:
    last = max(study.study.cells[study.study.main].budgets)
    points = []
    for rate, _, variant in stiffnesses(study, rows, probes):
        nfe = by_seed(rows, "nfe", cell=study.study.main, variant=variant, steps=last)
        if nfe:
            points.append((rate, float(np.mean(list(nfe.values()))), variant))
    if len(points) < 3:
        return ""
    grows = all(stiffer[1] >= next_[1] for stiffer, next_ in pairwise(points))
    shown = ", ".join(f"{variant} {nfe:.0f} at {rate:.2f}" for rate, nfe, variant in points)
    return (
        "**What lambda does to solver cost.** Lambda weighs the mean of t'^2 |v|^2: how far the solver has to carry a "
        f"sample in a given time. {STIFF if grows else NOT_STIFF}: {shown} (evaluations of the network per sample, at "
        "the mean of t'^2)."
    )


def _predicted(study: StudyConfig, probes: Sequence[Row], predictions: Sequence[Row]) -> str:
    compared = [one for row in predictions for one in row["probes"] if one["stopped"] != "collapsed"]
    if not compared:
        return ""
    errors = [abs(one["measured"] - one["predicted"]) for one in compared]
    chosen = {row["cell"]: row["lambda"] for row in probes if row["chosen"]}
    pairs = [(row["weakest_stable"], chosen[row["cell"]]) for row in predictions if row["cell"] in chosen]
    same = sum(a == b for a, b in pairs)
    near = sum(a is not None and max(a / b, b / a) <= 1.01 * study.sweep.resolution for a, b in pairs)
    rank = spearmanr([one["measured"] for one in compared], [one["predicted"] for one in compared]).statistic
    below = sum(one["measured"] < one["predicted"] for one in compared if one["jacobian"] == "stop")
    stopped = sum(one["jacobian"] == "stop" for one in compared)
    estimates = [row["estimate"] / chosen[row["cell"]] for row in predictions if row["cell"] in chosen]
    return (
        "**What predicts the schedule.** The latents' means and covariance, without training anything: Algorithm 1 on "
        "the Gaussian that has them (within classes, where the network sees classes) finds the same weakest stable "
        f"lambda as the probes' search in {same} of {len(pairs)} cells, and one at most a step of the grid away in "
        f"{near}. Distances from collapse are off by {np.mean(errors):.2f} on average and {max(errors):.2f} at most "
        f"over {len(errors)} probes (rank correlation {rank:.2f}); real probes end nearer to collapse in {below} of "
        f"the {stopped} with the stop-gradient. One division does most of it: what the way to collapse gains, over "
        f"what it costs in kinetic energy, is {_range(estimates)} times the lambda that was found."
    )


def _where(study: StudyConfig, rows: Sequence[Row], semantics: Sequence[Row]) -> str:
    found = [gain for gain in gains(study, rows, semantics) if gain.steps == max(study.study.cells[gain.cell].budgets)]
    if len(found) < 3:
        return ""
    found.sort(key=lambda gain: float(np.mean(gain.ratios)))
    shown = ", ".join(f"{gain.cell} {np.mean(gain.ratios):.2f}" for gain in found)
    best = found[0]
    sure = [gain for gain in found if max(gain.ratios) < 1]
    rank = spearmanr([gain.r2 for gain in found], [np.mean(gain.ratios) for gain in found])
    related = "is related to it" if rank.pvalue < 0.05 else "does not tell where it pays"
    return (
        "**Where does it pay?** Distance under the learned over that under the synchronous schedule, at each cell's "
        f"last budget: {shown}. It is below 1 for every seed in {len(sure)} of {len(found)} cells; the best is "
        f"{best.cell}. What the semantics explain of the texture {related} (rank correlation {rank.statistic:+.2f}, p "
        f"= {rank.pvalue:.2f}, {len(found)} cells)."
    )


def _solvers(study: StudyConfig, rows: Sequence[Row]) -> str:
    main, settings = study.study.main, study.study.cells[study.study.main]
    if not settings.solvers:
        return ""
    last = max(settings.budgets)
    ways = [study.study.solvers[name] for name in settings.solvers]
    solver = min((f"{way['solver']}{way['steps']}" for way in ways), key=lambda name: (len(name), name))
    said = []
    for variant in study.compare.variants:
        fine = by_seed(rows, cell=main, variant=variant, steps=last)
        coarse = by_seed(rows, cell=main, variant=variant, steps=last, solver=solver, exact=False)
        test = paired(coarse, fine)
        if test is not None:
            said.append(f"{variant} {test.mean:+.1f}")
    if not said:
        return ""
    return (
        f"**Coarse solvers.** What {solver} adds to dopri5's Fréchet distance at {last:,} steps: {', '.join(said)}. A "
        "negative number is no mistake: a coarse solver's error can move samples towards the data where the network, "
        "being short of training, does not."
    )


def _distances(rows: Sequence[Row]) -> list[float]:
    return [row["distance_from_collapse"] for row in rows]


def _range(values: Sequence[float]) -> str:
    low, high = (f"{value:.3g}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
