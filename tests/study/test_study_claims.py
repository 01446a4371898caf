"""The study's verdicts on made-up rows: they must follow the numbers, and never say more."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lwd.config import load

FOLDER = Path(__file__).parents[2] / "experiments" / "study"
sys.path.insert(0, str(FOLDER))

import claims  # noqa: E402
import design  # noqa: E402
import stats  # noqa: E402

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


def test_ratios_are_of_seeds_that_both_have() -> None:
    rows = measured(stats.SYNCHRONOUS, {175: [10.0, 20.0, 40.0]}) + measured(stats.LEARNED, {175: [5.0, 30.0]})
    assert stats.ratios(rows, "trained", 175) == [0.5, 1.5]
    assert stats.ratios(rows, "trained", 350) == stats.ratios([], "trained", 175) == []
    assert stats.steps_to_reach([], 1.0) is None


def test_the_control_and_the_cheapest_solver_are_found_by_their_settings(study: design.StudyConfig) -> None:
    assert stats.controls(study) == [("shuffled", "trained")]  # not trained-smaller, nor trained-unconditional
    assert stats.cheapest_solver(study, "trained") == "heun5" and stats.cheapest_solver(study, "poor") is None


@pytest.mark.parametrize(
    ("sfd", "shown", "verdict"),
    [
        ({175: 20.0, 1400: 9.5}, "at least 8.0 times fewer", "held"),
        ({175: 20.0, 1400: 4.0}, "4.0 times fewer", "held"),
        ({175: 20.0, 1400: 2.0}, "2.0 times fewer", "contradicted"),
        ({175: 20.0, 1400: 0.5}, "not reached", "contradicted"),
        ({175: 20.0}, "n/a", "not measured"),
        ({175: 20.0, 1400: NAN}, "n/a", "not measured"),
    ],
)
def test_speed_against_sfd(study: design.StudyConfig, sfd: Any, shown: str, verdict: str) -> None:
    """The learned schedule's distance is 1,400 / steps, a straight line on log-log axes."""
    rows = both({175: 0.8, 1400: 0.1}, seeds=1)
    rows += measured(stats.SFD, {steps: [value] for steps, value in sfd.items()})
    assert claims._speed(study, rows)[1:] == [shown, verdict]


def test_a_lower_bound_that_is_too_low_decides_nothing() -> None:
    few = load(design.StudyConfig, FOLDER / "presets" / "cpu.yaml", ["study.cells.trained.budgets=[400,800]"])
    rows = measured(stats.LEARNED, {400: [5.0], 800: [3.0]}) + measured(stats.SFD, {400: [20.0], 800: [10.0]})
    assert claims._speed(few, rows)[1:] == ["at least 2.0 times fewer", "undecided"]


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


def test_nothing_measured_and_numbers_that_are_not_finite_hold_nothing(study: design.StudyConfig) -> None:
    assert claims.claims(study, [], [], []).count("not measured") > 10
    odd = both({1400: NAN})
    assert "held" not in claims._better(odd, "trained", 1400, stats.LEARNED, stats.SYNCHRONOUS)
