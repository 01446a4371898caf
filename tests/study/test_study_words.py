"""The study's verdicts and sentences on made-up rows: what they say must follow the numbers, and never more."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from lwd.config import load

FOLDER = Path(__file__).parents[2] / "experiments" / "study"
sys.path.insert(0, str(FOLDER))

import claims  # noqa: E402
import design  # noqa: E402
import stats  # noqa: E402
import words  # noqa: E402
from words_prediction import prediction_words  # noqa: E402

Rows = list[dict[str, Any]]
IDENTITY, EXTREMAL = [1.0, -40.0, -40.0, -40.0, -40.0], [-40.0, -40.0, -40.0, -40.0, 1.0]
NAN = math.nan


@pytest.fixture(scope="module")
def study() -> design.StudyConfig:
    return load(design.StudyConfig, FOLDER / "presets" / "cpu.yaml", ["output=/nowhere"])


def measured(variant: str, values: dict[int, Sequence[float]], cell: str = "trained", **more: Any) -> Rows:
    """One row for each seed of each budget."""
    way = {"cell": cell, "variant": variant, "guided": False, "exact": True, "solver": "dopri5", "nfe": 40.0}
    way |= {"schedule": variant} | more
    return [
        way | {"steps": steps, "seed": seed, "frechet": value}
        for steps, each in values.items()
        for seed, value in enumerate(each)
    ]


def both(values: dict[int, float], cell: str = "trained", seeds: int = 3) -> Rows:
    """A synchronous distance of 10 and a learned one at ``values`` times it."""
    base = measured(stats.SYNCHRONOUS, dict.fromkeys(values, [10.0] * seeds), cell)
    return base + measured(stats.LEARNED, {steps: [10 * ratio] * seeds for steps, ratio in values.items()}, cell)


def probed(cell: str, name: str, distance: float, weight: float = 0.06, **more: Any) -> dict[str, Any]:
    """A probe; ``name`` chosen: the one of the weakest stable lambda."""
    encoder = cell.removesuffix("-unconditional").removesuffix("-smaller")
    row = {
        "cell": cell,
        "encoder": encoder,
        "conditional": "unconditional" not in cell,
        "probe": name,
        "seed": 0,
        "schedule": name,
    }
    row |= {"chosen": name == "chosen", "lambda": weight, "distance_from_collapse": distance, "collapsed": False}
    return row | {"jacobian": "exact" if name.startswith("exact") else "stop", "rho": {"tex": IDENTITY}} | more


def mixed(way: float) -> dict[str, list[float]]:
    """rho of a curve that lies about ``way`` between the identity and tau^5."""
    return {"tex": [math.log(math.expm1(1 - way)), -40.0, -40.0, -40.0, math.log(math.expm1(way * 5))]}


def predicted(cell: str, probes: Rows, ideal: float | None = 0.06, shrunk: float | None = 0.06, **more: Any) -> Any:
    drives = {"own": -0.1, "help": -0.02, "harm": 0.01, "kinetic": 2.0}
    row = {"cell": cell, "data": cell, "conditional": True, "drives": drives, "estimate": 0.05, "probes": probes}
    return row | {"weakest_stable": {"ideal": ideal, "shrunk": shrunk}} | more


def said(probe: str, ideal: float, shrunk: float, weight: float = 0.06, jacobian: str = "stop") -> dict[str, Any]:
    return {"probe": probe, "lambda": weight, "jacobian": jacobian, "ideal": ideal, "shrunk": shrunk}


@pytest.mark.parametrize(
    ("differences", "p", "verdict"),
    [
        ((-1.0, -1.0, -1.0), None, "lower"),  # all the same: no t-test, and no doubt
        ((1.0, 1.0, 1.0), None, "higher"),
        ((0.0, 0.0, 0.0), None, "undecided"),
        ((-1.0, -1.0), None, "undecided"),
        ((NAN, -1.0, -1.0), NAN, "undecided"),
        ((NAN, NAN, NAN), NAN, "undecided"),
        ((math.inf, 1.0, 2.0), 0.01, "undecided"),
        ((0.0, 1.0, 2.0), 0.01, "undecided"),
        ((-1.0, -0.9, -1.1), 0.01, "lower"),
        ((-1.0, -0.9, -1.1), 0.06, "undecided"),
        ((-1.0, -0.9, -1.1), None, "undecided"),
    ],
)
def test_verdicts_of_pairs(differences: tuple[float, ...], p: float | None, verdict: str) -> None:
    assert stats.Paired(differences, p).verdict == verdict


def test_equal_differences_and_values_that_are_not_finite_have_no_p() -> None:
    for values in ((3.0, 3.0, 3.0), (1.0, 2.0, NAN)):
        test = stats.paired(dict(enumerate(values)), dict.fromkeys(range(3), 2.0))
        assert test is not None and test.p is None


def test_rank_correlations_are_tested_against_all_permutations() -> None:
    a, b = [0.2, 0.5, 0.1, 0.9, 0.7, 0.3], [1.0, 2.0, 1.5, 4.0, 2.5, 0.5]
    rank = spearmanr(a, b).statistic
    every = [spearmanr(order, b).statistic for order in permutations(a)]
    found = stats.rank_correlation(a, b)
    assert found is not None and found[0] == pytest.approx(rank)
    # two-sided as scipy's permutation_test has it: twice the smaller tail
    assert found[1] == pytest.approx(2 * np.mean(np.array(every) >= rank - 1e-9))
    assert stats.rank_correlation(a[:5], b[:5]) == (pytest.approx(spearmanr(a[:5], b[:5]).statistic), None)
    for x in ([0.5] * 6, [NAN, *a[1:]], []):
        assert stats.rank_correlation(x, b[: len(x)]) is None


def test_ratios_are_of_seeds_that_both_have() -> None:
    rows = measured(stats.SYNCHRONOUS, {175: [10.0, 20.0, 40.0]}) + measured(stats.LEARNED, {175: [5.0, 30.0]})
    assert stats.ratios(rows, "trained", 175) == [0.5, 1.5]
    assert stats.ratios(rows, "trained", 350) == stats.ratios([], "trained", 175) == []
    assert stats.steps_to_reach([], 1.0) is None


def test_the_control_and_the_cheapest_solver_are_found_by_their_settings(study: design.StudyConfig) -> None:
    assert stats.controls(study) == [("shuffled", "trained")]  # not trained-smaller, nor trained-unconditional
    assert stats.cheapest_solver(study, "trained") == "heun5" and stats.cheapest_solver(study, "poor") is None


@pytest.mark.parametrize(
    ("ratios", "trend"),
    [
        ((1.2, 1.1, 0.95, 0.9), "falls at every step"),
        ((1.2, 1.1, 0.95, 0.94), "falls from the first to the last, though not at every step"),
        ((1.2, 1.3, 1.0, 0.9), "falls from the first to the last, though not at every step"),
        ((0.9, 1.0, 1.1, 1.2), "rises at every step"),
        ((0.9, 1.1, 1.0, 1.2), "rises from the first to the last, though not at every step"),
        ((1.0, 1.1, 1.0, 1.01), "no trend"),
    ],
)
def test_trends(study: design.StudyConfig, ratios: tuple[float, ...], trend: str) -> None:
    text = words.discussion(study, both(dict(zip((175, 350, 700, 1400), ratios, strict=True))), [], [], [])
    assert ", ".join(f"{ratio:.2f}" for ratio in ratios) + " at 175, 350, 700, 1,400 steps (3 seeds)" in text
    assert f"it {trend}" in text or f"there is {trend}" in text


def test_does_it_pay_asks_for_two_budgets_common_seeds_and_finite_numbers(study: design.StudyConfig) -> None:
    assert words.discussion(study, both({175: 0.9}), [], [], []) == ""
    assert words.discussion(study, both({175: 0.9, 1400: NAN}), [], [], []) == ""
    rows = both({175: 0.9, 350: 0.8})
    rows = [row for row in rows if row["variant"] == stats.SYNCHRONOUS or row["seed"] == 1]
    rows += measured(stats.SYNCHRONOUS, {350: [1000.0, 10.0]})[:1]  # a seed that only one side has
    assert "0.90, 0.80 at 175, 350 steps (1 seed)" in words.discussion(study, rows, [], [], [])


@pytest.mark.parametrize(
    ("sfd", "when", "shown", "verdict"),
    [
        ({175: 20.0, 1400: 9.5}, "within the first budget (175 of 1,400 steps)", "at least 8.0 times fewer", "held"),
        ({175: 20.0, 1400: 4.0}, "final value at 350 of 1,400 steps", "4.0 times fewer", "held"),
        ({175: 20.0, 1400: 2.0}, "final value at 700 of 1,400 steps", "2.0 times fewer", "contradicted"),
        ({175: 20.0, 1400: 0.5}, "does not reach its final value", "not reached", "contradicted"),
        ({175: 20.0}, "", "n/a", "not measured"),
        ({175: 20.0, 1400: NAN}, "", "n/a", "not measured"),
    ],
)
def test_against_sfd(study: design.StudyConfig, sfd: Any, when: str, shown: str, verdict: str) -> None:
    """The learned schedule's distance is 1,400 / steps, a straight line on log-log axes."""
    rows = both({175: 0.8, 1400: 0.1}, seeds=1)
    rows += measured(stats.SFD, {steps: [value] for steps, value in sfd.items()})
    text = words.discussion(study, rows, [], [], [])
    assert when in text and ("SFD" in text) == bool(when)
    assert claims._speed(study, rows)[1:] == [shown, verdict]


def test_a_lower_bound_that_is_too_low_decides_nothing() -> None:
    few = load(design.StudyConfig, FOLDER / "presets" / "cpu.yaml", ["study.cells.trained.budgets=[400,800]"])
    rows = measured(stats.LEARNED, {400: [5.0], 800: [3.0]}) + measured(stats.SFD, {400: [20.0], 800: [10.0]})
    assert claims._speed(few, rows)[1:] == ["at least 2.0 times fewer", "undecided"]


def pair(cell: str, exact: float, stopped: float) -> Rows:
    return [probed(cell, "chosen", stopped), probed(cell, "exact", exact, jacobian="exact")]


@pytest.mark.parametrize(
    ("probes", "has", "lacks"),
    [
        (pair("trained", 0.98, 0.2) + pair("poor", 0.95, 0.3), "stays near the identity (distance from collapse 0.95 "
         "to 0.98, 2 cells) where the stopped one leaves it (0.2 to 0.3)", "every cell"),
        (pair("trained", 0.05, 0.99), "0.05 with the exact Jacobian and 0.99 with the stopped one (1 cell); the exact "
         "one is the farther in 0", "stays near"),
        (pair("trained", 0.98, 0.95), "0.98 with the exact Jacobian and 0.95", "leaves it"),
        ([*pair("trained", 0.98, 0.2), probed("poor", "exact", 0.1)], "(distance from collapse 0.98, 1 cell)", "0.1 "),
        ([*pair("trained", 0.98, 0.2), probed("trained", "exact-weaker-16", 0.99, 0.06 / 16)],
         "stays near the identity: 0.99 at 16 times less (1 cell)", "is:"),
        (pair("trained", 0.98, 0.2) + pair("poor", 0.98, 0.2) + [probed("trained", "exact-weaker-16", 0.99, 0.00375),
         probed("poor", "exact-weaker-4", 0.5, 0.015)], "it is: 0.99 at 16 times less (1 cell); 0.5 at 4 times less",
         "it stays"),
    ],
)  # fmt: skip
def test_the_stop_gradient(study: design.StudyConfig, probes: Rows, has: str, lacks: str) -> None:
    text = words.discussion(study, [], probes, [], [])
    assert has in text and lacks not in text and "On the Gaussian" not in text
    text = words.discussion(study, [], probes, [], [predicted("trained", [])])
    assert "gains 0.09 of loss by the stopped account, and 0.01 by the exact one" in text


def test_the_control_in_words(study: design.StudyConfig) -> None:
    probes = [probed("trained", "chosen", 0.2), probed("trained", "seed-1", 0.3, seed=1)]
    assert words.discussion(study, [], probes, [], []) == ""
    text = words.discussion(study, [], [*probes, probed("shuffled", "chosen", 0.5, 0.035)], [], [])
    assert "shuffled leads to lambda 0.035 and distances from collapse of 0.5 (1 probe seed)" in text
    assert "to 0.06 and 0.2 to 0.3 (2 probe seeds)" in text


def seeds(cell: str, ways: Sequence[float], weight: float = 0.06) -> Rows:
    names = ["chosen", *(f"seed-{seed}" for seed in range(1, len(ways)))]
    rows = enumerate(zip(names, ways, strict=True))
    return [probed(cell, name, 1 - way, weight, rho=mixed(way), seed=seed) for seed, (name, way) in rows]


@pytest.mark.parametrize(
    ("intact", "shuffled", "weight", "verdict"),
    [
        ((0.5, 0.52, 0.54), (0.7, 0.72, 0.74), 0.06, "held"),
        ((0.5, 0.52, 0.54), (0.505, 0.525, 0.545), 0.06, "contradicted"),
        ((0.5, 0.52, 0.54), (0.53, 0.55, 0.57), 0.06, "undecided"),  # 0.03: above the mean, below the largest
        ((0.5, 0.52), (0.7, 0.72), 0.06, "undecided"),  # two seeds
        ((0.5, 0.52, 0.54), (0.7,), 0.06, "undecided"),
        ((0.5, 0.52, 0.54), (0.7, 0.72, 0.74), 0.035, "undecided"),
        ((0.5, 0.52, 0.54), (), 0.06, "not measured"),
    ],
)
def test_the_control_decides_by_three_seeds(intact: Any, shuffled: Any, weight: float, verdict: str) -> None:
    rows = seeds("trained", intact) + (seeds("shuffled", shuffled, weight) if shuffled else [])
    line = claims._informed(rows, "shuffled", "trained")
    assert line[2] == verdict
    assert weight == 0.06 or line[1] == "lambda 0.035 against 0.06"


@pytest.mark.parametrize(
    ("distances", "spread", "verdict"),
    [
        ({"poor": 0.2, "semvae": 0.3, "trained": 0.4}, 0.0, "held"),
        ({"poor": 0.2, "semvae": 0.3, "trained": 0.4}, 0.25, "undecided"),
        ({"poor": 0.2, "semvae": 0.4, "trained": 0.3}, 0.0, "contradicted"),
        ({"poor": 0.2, "semvae": 0.34, "trained": 0.3}, 0.0, "undecided"),  # within 0.05, but not in order
        ({"poor": 0.2, "semvae": 0.22, "trained": 0.24}, 0.0, "undecided"),
        ({"poor": 0.2, "trained": 0.4}, 0.0, "not measured"),
        ({"poor": 0.2, "trained": 0.4, "trained-smaller": 0.9, "shuffled": 0.1}, 0.0, "not measured"),
    ],
)
def test_the_order_counts_beyond_seeds(study: design.StudyConfig, distances: Any, spread: float, verdict: str) -> None:
    """Explained beyond the class: poor, semvae, trained; without it the other way round, which must not count."""
    r2 = {"poor": 0.2, "semvae": 0.3, "trained": 0.4, "shuffled": 0.1}
    semantics = [{"encoder": name, "r2_given_label": each, "r2_ridge": 1 - each} for name, each in r2.items()]
    probes = [probed(cell, "chosen", distance) for cell, distance in distances.items()]
    probes.append(probed("trained", "seed-1", distances["trained"] - spread, seed=1))
    assert claims._order(study, probes, semantics)[2] == verdict


@pytest.mark.parametrize(
    ("rho", "collapsed", "verdict"),
    [(EXTREMAL, True, "held"), (EXTREMAL, False, "contradicted"), (IDENTITY, True, "contradicted")],
)
def test_weak_lambdas(rho: list[float], collapsed: bool, verdict: str) -> None:
    rows = [probed("trained", "weaker-4", 0.0, rho={"tex": EXTREMAL}, collapsed=True)]
    line = claims._regimes([*rows, probed("poor", "weaker-4", 0.0, rho={"tex": rho}, collapsed=collapsed)])
    assert f"{1 + collapsed} of 2 collapsed, in 2 cells" in line[1] and line[2] == verdict
    assert claims._regimes([])[2] == "not measured"


@pytest.mark.parametrize(
    ("nfe", "direction"),
    [
        (((60, 61), (50, 51), (40, 41)), "The stiffer the curve, the more evaluations dopri5 takes:"),
        (((60, 61), (60, 61), (40, 41)), "The stiffer the curve, the more evaluations dopri5 takes, where"),
        (((40, 41), (50, 51), (60, 61)), "The stiffer the curve, the fewer evaluations dopri5 takes:"),
        (((50, 51), (60, 61), (40, 41)), "do not go by it alone"),
        (((40, 40), (40, 40), (40, 40)), "differ no more than between seeds"),
        (((42, 52), (41, 51), (40, 50)), "differ no more than between seeds"),
        (((60,), (50,), (40,)), "With one seed"),
    ],
)
def test_evaluations_by_stiffness(study: design.StudyConfig, nfe: Any, direction: str) -> None:
    """From the stiffest, tau^5, on."""
    probes = [probed("trained", "chosen", 0.3, rho=mixed(0.5), schedule=stats.LEARNED)]
    rows = []
    for variant, each in zip((stats.COLLAPSED, stats.LEARNED, stats.SYNCHRONOUS), nfe, strict=True):
        for seed, value in enumerate(each):
            rows += [row | {"seed": seed, "nfe": float(value)} for row in measured(variant, {1400: [10.0]})]
    assert direction in words._weight(study, rows, probes)


def test_what_predicts_by_hand(study: design.StudyConfig) -> None:
    """Measured 0.2, 0.3, 0.7 (and one collapsed, which is left out) against ideal and shrunk ones."""
    probes = [probed("trained", "chosen", 0.2), probed("trained", "sweep/b", 0.7, 0.2), probed("trained", "exact", 0.9)]
    probes += [probed("poor", "chosen", 0.3, 0.2), probed("poor", "sweep/a", 0.05)]
    predictions = [
        predicted("trained", [said("chosen", 0.3, 0.1), said("sweep/b", 0.8, 0.75, 0.2), said("absent", 0, 0),
                              said("exact", 0.98, 0.7, jacobian="exact")]),
        predicted("poor", [said("chosen", 0.4, 0.31, 0.2), said("sweep/a", 0.9, 0.9)], ideal=None, shrunk=0.12),
    ]  # fmt: skip
    text = prediction_words(study, probes, predictions)
    assert "Over the 3 probes with the stop-gradient that did not collapse (2 cells)" in text
    assert "+0.10 on average with the ideal denoiser (mean absolute error 0.10)" in text
    assert "-0.01 with the shrunk one (0.05)" in text  # -0.10, 0.05, 0.01
    assert "0.40, has an error of 0.20" in text  # (0.2 + 0.1 + 0.3) / 3
    assert "2 of 3 lie between" in text  # 0.2 in [0.1, 0.3]; 0.7 not in [0.75, 0.8]; 0.3 within 0.02 of [0.31, 0.4]
    assert "ideal denoiser's in 1 of 2 cells, and of the shrunk one's in 2" in text  # 0.12 is within 1.8 of 0.2
    assert "always saying 0.06, the most frequent one, is in 1" in text
    assert "the largest error is 0.08 (ideal) and 0.20 (shrunk), of 1 probe" in text
    assert "rank correlation" not in text and "share" not in text


CELLS = ("trained", "poor", "random", "semvae", "trained-unconditional", "poor-unconditional")


@pytest.mark.parametrize(
    ("found", "ideal", "has"),
    [
        ((1, 2, 3, 4, 5, 6), (2, 3, 4, 5, 6, 7), "right (mean 0.35, predicted 0.45 and 0.25) and tells cells apart"),
        ((1, 2, 3, 4, 5, 6), (6, 3, 4, 5, 2, 7), "has the level right (mean 0.35, predicted 0.45 and 0.25) but does "
         "not predict the differences between cells"),
        ((1, 2, 3, 4, 5, 6), (7, 6, 5, 4, 3, 2), "-1.00, p = 0.003 (shrunk). There the prediction has the level "
         "right (mean 0.35, predicted 0.45 and 0.25) but does not predict the differences"),
        ((1, 2, 3, 4, 5, 6), (4, 4, 4, 4, 4, 4), "correlation of predicted and measured distances is undefined"),
        ((3, 3, 3, 3, 3, 3), (8, 8, 8, 8, 9, 9), "misses the level (mean 0.30, predicted 0.83 and 0.63) and does not"),
        ((1, 2, 3, 4), (2, 3, 4, 5), "these are too few cells to say"),
    ],
)  # fmt: skip
def test_level_and_differences_between_cells(study: design.StudyConfig, found: Any, ideal: Any, has: str) -> None:
    """In tenths; the shrunk one is 0.2 below the ideal one."""
    cells = CELLS[: len(found)]
    probes = [probed(cell, "chosen", each / 10) for cell, each in zip(cells, found, strict=True)]
    predictions = [
        predicted(cell, [said("chosen", each / 10, each / 10 - 0.2)]) for cell, each in zip(cells, ideal, strict=True)
    ]
    assert has in prediction_words(study, probes, predictions)
    assert "rank" not in prediction_words(study, probes[:3], predictions[:3])


def test_cells_of_the_same_data_and_classes_count_once(study: design.StudyConfig) -> None:
    cells, mine = ("trained", "trained-smaller", "trained-unconditional"), [said("chosen", 0.5, 0.5)]
    probes = [probed(cell, "chosen", 0.5, weight) for cell, weight in zip(cells, (0.06, 0.11, 0.06), strict=True)]
    rows = [predicted(cell, mine, data="d", conditional="un" not in cell) for cell in cells]
    text = prediction_words(study, probes, rows)
    assert "Over the 2 probes" in text and "found are: trained (0.06), trained-smaller (0.11)." in text
    assert "Over the 1 probe" in prediction_words(study, probes[1:2], rows)  # the first has none: the second counts


def test_no_lambda_found_is_nothing_said(study: design.StudyConfig) -> None:
    collapsed = [probed("trained", "sweep/a", 0.02)]
    rows = [predicted("trained", [said("sweep/a", 0.5, 0.5)], None, None), predicted("poor", [])]
    assert words.discussion(study, [], collapsed, [], rows) == ""
    assert words.discussion(study, [], [], [], rows) == words.discussion(study, [], [], [], []) == ""
    assert claims.claims(study, [], [], []).count("not measured") > 10
    odd = both({1400: NAN})
    assert words.discussion(study, odd, [], [], []) == "" and "held" not in claims._better(
        odd, "trained", 1400, stats.LEARNED, stats.SYNCHRONOUS
    )


def explained(values: Sequence[float]) -> Rows:
    names = ("trained", "poor", "random", "semvae")
    return [{"encoder": e, "r2_given_label": r2, "r2_ridge": r2 / 10} for e, r2 in zip(names, values, strict=True)]


def where(study: design.StudyConfig, ratios: Sequence[float]) -> Rows:
    cells = (*CELLS, "trained-smaller")[: len(ratios)]
    pairs = zip(cells, ratios, strict=True)
    return [row for cell, ratio in pairs for row in both({max(study.study.cells[cell].budgets): ratio}, cell, 2)]


@pytest.mark.parametrize(
    ("ratios", "r2", "has", "lacks"),
    [
        ((1.2, 1.1, 1.3), (0.5, 0.2, 0.8, 0.4), "Nowhere: it is 1 or more on average in all 3 cells", "best"),
        ((0.9, 1.1, 1.3), (0.5, 0.2, 0.8, 0.4), "in 1 of 3 cells; the best is trained", "rank"),
        ((0.7, 0.6, 0.8, 0.65, 0.5, 0.4), (0.7, 0.6, 0.8, 0.65), "related to it (rank correlation +1.00, p = 0.003 by "
         "permutation, 6 cells)", "counted once"),
        ((0.7, 0.6, 0.8, 0.65, 0.5, 0.4, 0.72), (0.7, 0.6, 0.8, 0.65), "6 cells, those of the same encoder and classes "
         "counted once)", "7 cells)"),
        ((0.7, 0.6, 0.5, 0.65, 0.9, 0.8), (0.7, 0.6, 0.8, 0.65), "does not tell where it pays", "is related"),
        ((0.7, 0.7, 0.7, 0.7, 0.7, 0.7), (0.7, 0.6, 0.8, 0.65), "in 6 of 6", "rank"),
        ((0.7, 0.6, 0.8, 0.65, 0.5, NAN), (0.7, 0.6, 0.8, 0.65), "in 5 of 5", "rank"),
    ],
)  # fmt: skip
def test_where_it_pays(study: design.StudyConfig, ratios: Any, r2: Any, has: str, lacks: str) -> None:
    text = words.discussion(study, where(study, ratios), [], explained(r2), [])
    assert has in text and lacks not in text


def test_coarse_solvers(study: design.StudyConfig) -> None:
    fine = measured(stats.SYNCHRONOUS, {1400: [10.0]})
    for value, sign in ((12.0, "+2.0."), (9.0, "-1.0. A negative number is no mistake")):
        coarse = measured(stats.SYNCHRONOUS, {1400: [value]}, exact=False, solver="heun5")
        text = words.discussion(study, fine + coarse, [], [], [])
        assert f"What heun5 adds to dopri5's Fréchet distance at 1,400 steps: synchronous {sign}" in text
        assert ("mistake" in text) == (value < 10)
