"""Intervals, verdicts and corrections of the study, against closed forms and SciPy."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr, t

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "study"))

import stats
import tables
from lwd.metrics import frechet_distance, gaussian_stats
from lwd.metrics.influence import frechet_influence

Rows = dict[int, dict[str, object]]


def rows(values: np.ndarray, replicates: np.ndarray | None = None, metric: str = "frechet") -> Rows:
    still = np.zeros((len(values), 100))
    return {
        seed: {metric: float(value), "replicates": moved.tolist()}
        for seed, (value, moved) in enumerate(zip(values, still if replicates is None else replicates, strict=True))
    }


@pytest.mark.parametrize("seeds", [3, 4, 8])
def test_the_interval_over_seeds_covers(seeds: int) -> None:
    """Normal differences: a 95 % interval holds the truth in 91 to 97 of 100 (400 trials: standard error 1 %), and p
    is below 5 % where it leaves zero out."""
    generator = np.random.default_rng(0)
    inside = []
    for _ in range(400):
        found = stats.difference(rows(generator.normal(1.0, 1.0, seeds)), rows(np.zeros(seeds)))
        assert found is not None and (found.p < 0.05) == (found.sign() != "none")
        inside.append(found.low <= 1.0 <= found.high)
    assert 0.91 <= np.mean(inside) <= 0.97


def test_the_interval_of_a_share_covers() -> None:
    """The same of 5 000 samples each, 72 and 70 % of which are right: their draws are in the spread over seeds."""
    generator = np.random.default_rng(0)
    inside = []
    for _ in range(400):
        a, b = (rows(generator.binomial(5000, share, 8) / 5000, metric="accuracy") for share in (0.72, 0.70))
        found = stats.difference(a, b, "accuracy")
        assert found is not None
        inside.append(found.low <= 0.02 <= found.high)
    assert 0.91 <= np.mean(inside) <= 0.97


def test_the_width_is_that_of_the_standard_error() -> None:
    each = np.random.default_rng(1).normal(0.0, 2.0, 30)
    found = stats.difference(rows(each), rows(np.zeros(30)))
    assert found is not None and found.mean == pytest.approx(each.mean())
    half = t.ppf(0.975, 29) * each.std(ddof=1) / np.sqrt(30)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=1e-9)


def test_noise_of_samples_widens_it_and_common_noise_does_not() -> None:
    generator = np.random.default_rng(2)
    noise, other = generator.normal(0.0, 3.0, (2, 8, 100))
    paired = stats.difference(rows(np.zeros(8), noise), rows(np.ones(8), noise))
    single = stats.difference(rows(np.zeros(8), noise), rows(np.ones(8), other))
    assert paired is not None and single is not None
    assert paired.low == paired.high == -1 and paired.p == 0
    half = t.ppf(0.975, 7) * 3 * np.sqrt(2 / 8) * np.sqrt(8 / 7)
    assert (single.high - single.low) / 2 == pytest.approx(half, rel=0.1)


def test_fewer_than_three_seeds_decide_nothing() -> None:
    assert stats.difference(rows(np.zeros(2)), rows(np.ones(5))) is None


def test_replicates_are_the_bootstrap_s() -> None:
    """The spread of the influence's replicates is that of distances of sets drawn again, to second order in D / N."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2000, 4, generator=generator) * 1.3 + 0.2
    reference = gaussian_stats(torch.randn(5000, 4, generator=generator))
    influence = frechet_influence(features, gaussian_stats(features), reference)
    drawn = torch.randint(2000, (300, 2000), generator=generator)
    again = torch.tensor([frechet_distance(*gaussian_stats(features[some]), *reference) for some in drawn])
    assert float(influence[drawn].mean(1).std()) == pytest.approx(float(again.std()), rel=0.1)
    assert float(torch.corrcoef(torch.stack([influence[drawn].mean(1), again.double()]))[0, 1]) > 0.99


def test_holm_by_hand() -> None:
    """Of three: 3 x .01, 2 x .02 (not under the first), 1 x .5."""
    assert stats.holm({"b": 0.02, "a": 0.01, "c": 0.5}, of=3) == pytest.approx({"a": 0.03, "b": 0.04, "c": 0.5})
    assert stats.holm({"a": 0.01, "b": 0.011}, of=2) == pytest.approx({"a": 0.02, "b": 0.02})
    assert stats.holm({"a": 0.01, "b": 0.011}, of=4) == pytest.approx({"a": 0.04, "b": 0.04})  # two wait for their rows
    assert stats.holm({}, of=3) == {}


@pytest.mark.parametrize(
    ("expected", "low", "high", "adjusted", "verdict"),
    [
        ("lower", -2.0, -1.0, 0.01, "held"),
        ("lower", -2.0, -1.0, 0.2, "undecided"),  # lost in the correction
        ("lower", 1.0, 2.0, 0.01, "contradicted"),
        ("lower", -1.0, 1.0, 0.9, "undecided"),
        ("none", -1.0, 1.0, 0.9, "no difference found"),
        ("none", 1.0, 2.0, 0.01, "contradicted"),
    ],
)
def test_verdicts(expected: stats.Sign, low: float, high: float, adjusted: float, verdict: str) -> None:
    found = stats.Difference(((low + high) / 2,) * 3, low, high, adjusted)
    assert stats.Tested("name", "says", "frechet", False, expected, found, adjusted).verdict == verdict
    assert stats.Tested("name", "says", "frechet", False, expected, None, None).verdict == "not measured"


def test_rank_correlation() -> None:
    truth = np.arange(5.0)[:, None] + np.random.default_rng(0).normal(0, 0.6, (5, 8))
    whole, low, high = stats.rank_correlation([0.0, 1.0, 2.0, 4.0, 3.0], truth)
    assert whole == pytest.approx(spearmanr([0, 1, 2, 4, 3], truth.mean(1)).statistic)
    assert low <= whole <= high <= 1


def test_what_rounds_to_nothing_has_no_minus() -> None:
    found = stats.Difference((-0.04, -0.02), low=-0.12, high=0.04, p=0.5)
    assert tables.interval(found, digits=1) == "+0.0 (-0.1 to +0.0)"
