"""Influences are derivatives, intervals cover, and the extrapolation finds a distance that is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg, special
from torch import Tensor

from lwd.metrics import frechet_distance, gaussian_stats, inception_score
from lwd.metrics.influence import frechet_influence, inception_influence, kernel_influence
from lwd.metrics.intervals import bootstrap_interval, extrapolate

STEP = 1e-6
"""Of central differences of smooth functions in float64: errors of 1e-12 / STEP, so 1e-6, of the derivative."""


def correlated(n: int, dim: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dim, dim, generator=torch.Generator().manual_seed(99), dtype=torch.float64) / dim**0.5
    mix = torch.eye(dim, dtype=torch.float64) + 0.5 * mix
    return scale * torch.randn(n, dim, generator=generator, dtype=torch.float64) @ mix + shift


def by_weight(function, count: int, image: int) -> float:
    """The derivative of a function of weights, as weight moves from all images to one."""
    weights = np.full(count, 1 / count)
    towards = np.eye(count)[image] - weights
    return (function(weights + STEP * towards) - function(weights - STEP * towards)) / (2 * STEP)


def test_the_frechet_influence_is_a_derivative() -> None:
    """Of the definition with SciPy's `sqrtm` and weighted moments; 40 images, 5 features."""
    x, reference = correlated(40, 5, 1).numpy(), correlated(60, 5, 2, 1.3, 0.2)
    mean_r, covariance_r = gaussian_stats(reference)

    def distance(weights):
        mean = weights @ x
        covariance = (x - mean).T @ (weights[:, None] * (x - mean))
        root = linalg.sqrtm(covariance @ covariance_r.numpy()).real
        return ((mean - mean_r.numpy()) ** 2).sum() + np.trace(covariance + covariance_r.numpy() - 2 * root)

    mean = x.mean(0)
    gaussian = (torch.from_numpy(mean), torch.from_numpy((x - mean).T @ (x - mean) / len(x)))
    influence = frechet_influence(torch.from_numpy(x), gaussian, (mean_r, covariance_r))
    for image in (0, 17, 39):
        assert influence[image] == pytest.approx(by_weight(distance, len(x), image), rel=1e-5)
    assert influence.mean().abs() < 1e-12


def test_the_frechet_influence_leaves_out_what_the_reference_lacks() -> None:
    """A feature that is 0 everywhere, as DINOv2 and Inception have them, changes nothing."""
    x, reference = correlated(80, 4, 1), correlated(90, 4, 2, 1.2)
    wide = [torch.cat([part, torch.zeros(len(part), 2, dtype=torch.float64)], 1) for part in (x, reference)]
    plain = frechet_influence(x, gaussian_stats(x), gaussian_stats(reference))
    padded = frechet_influence(wide[0], gaussian_stats(wide[0]), gaussian_stats(wide[1]))
    torch.testing.assert_close(padded, plain, rtol=1e-9, atol=1e-9)


def test_the_inception_influence_is_a_derivative() -> None:
    logits = 2 * torch.randn(30, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = special.softmax(logits.numpy(), 1)

    def score(weights):
        return np.exp((weights[:, None] * p * (np.log(p) - np.log(weights @ p))).sum())

    assert score(np.full(30, 1 / 30)) == pytest.approx(inception_score(logits), rel=1e-12)
    influence = inception_influence(logits, 5000)
    for image in (0, 29):
        assert influence[image] == pytest.approx(by_weight(score, 30, image), rel=1e-5)


def test_splits_of_the_inception_score_count_alike() -> None:
    """Splits of 20 and 10: one image of the smaller moves the mean of two scores as a derivative says."""
    logits = 2 * torch.randn(30, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = special.softmax(logits.numpy(), 1)

    def score(weights):
        parts = [(weights[rows] / weights[rows].sum(), p[rows]) for rows in (slice(0, 20), slice(20, 30))]
        return np.mean([np.exp((w[:, None] * q * (np.log(q) - np.log(w @ q))).sum()) for w, q in parts])

    influence = inception_influence(logits, 20)
    for image in (3, 25):
        assert influence[image] == pytest.approx(by_weight(score, 30, image), rel=1e-5)


def test_the_kernel_influence_is_a_derivative() -> None:
    """Of the biased estimate, which differs from KID's by O(1/N); all rows as anchors."""
    x, y = correlated(25, 4, 1), correlated(20, 4, 2, 1.2)
    kernel = [((a.numpy() @ b.numpy().T) / 4 + 1) ** 3 for a, b in ((y, y), (y, x), (x, x))]

    def discrepancy(weights):
        return weights @ kernel[0] @ weights - 2 * weights @ kernel[1].mean(1) + kernel[2].mean()

    influence = kernel_influence(x, y, torch.arange(20), torch.arange(25))
    for image in (0, 19):
        assert influence[image] == pytest.approx(by_weight(discrepancy, 20, image), rel=1e-5)


def test_intervals_cover_what_another_draw_gives_on_average() -> None:
    """300 sets of 300 samples in 6 dimensions: the 90 % intervals hold the mean distance of such sets 85 to 95 % of the
    time (a binomial of deviation 1.7 %), and the standard error is the deviation between sets within 10 %."""
    reference = gaussian_stats(correlated(5000, 6, 7, 1.2, 0.1))
    distances, found = [], []
    for seed in range(300):
        x = correlated(300, 6, 1000 + seed)
        stats = gaussian_stats(x)
        distances.append(frechet_distance(*stats, *reference))
        influence = frechet_influence(x, stats, reference)
        found.append(bootstrap_interval(distances[-1], influence, 200, 0.9, seed))
    mean = np.mean(distances)
    assert 0.85 <= np.mean([i.low <= mean <= i.high for i in found]) <= 0.95
    assert np.mean([i.standard_error for i in found]) == pytest.approx(np.std(distances), rel=0.1)


def test_an_interval_is_that_of_the_whole_bootstrap() -> None:
    """Against 300 Fréchet distances of resampled images (4 % sampling error of a deviation): within 15 %."""
    x, reference = correlated(600, 8, 3), gaussian_stats(correlated(4000, 8, 4, 1.1, 0.2))
    generator = torch.Generator().manual_seed(0)
    whole = []
    for _ in range(300):
        whole.append(frechet_distance(*gaussian_stats(x[torch.randint(600, (600,), generator=generator)]), *reference))
    stats = gaussian_stats(x)
    value = frechet_distance(*stats, *reference)
    interval = bootstrap_interval(value, frechet_influence(x, stats, reference), 1000, 0.95, 0)
    assert interval.standard_error == pytest.approx(np.std(whole), rel=0.15)
    assert interval.low < value < interval.high
    assert interval == bootstrap_interval(value, frechet_influence(x, stats, reference), 1000, 0.95, 0)


def test_a_share_has_the_binomial_deviation() -> None:
    hits = (torch.arange(400) < 100).double()
    interval = bootstrap_interval(0.25, hits - 0.25, 2000, 0.95, 1)
    deviation = (0.25 * 0.75 / 400) ** 0.5
    assert interval.standard_error == pytest.approx(deviation, rel=0.06)  # 2000 replicates: 1.6 %
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * deviation, rel=0.1)


@pytest.mark.parametrize(("per_feature", "levels"), [(8, [512, 256, 128]), (25, [1600, 800, 400, 200])])
def test_the_extrapolation_finds_the_known_distance_where_few_samples_are_biased(
    per_feature: int, levels: list[int]
) -> None:
    """Isotropic Gaussians of deviation 1 and 1.02 in 64 dimensions: 64 * 0.02^2 = 0.0256, which at 25 samples per
    feature is a plain distance of 0.72, at 8 of 2.2. The mean of 24 limits is nearer than 3 of its standard errors,
    which are below 5 % of the bias (a straight line through all levels is off by 8 and by 11 % of the bias), and 21 or
    more of them lie within two of the standard errors they claim."""
    dim, truth, sets = 64, 64 * 0.02**2, 24
    reference = (torch.zeros(dim, dtype=torch.float64), 1.02**2 * torch.eye(dim, dtype=torch.float64))
    plain, limits, within = [], [], 0
    for seed in range(sets):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(per_feature * dim, dim, generator=generator, dtype=torch.float64)
        stats = gaussian_stats(x)
        plain.append(frechet_distance(*stats, *reference))
        error = bootstrap_interval(plain[-1], frechet_influence(x, stats, reference), 200, 0.95, seed).standard_error
        limit = extrapolate(x, reference, 4, error, seed, torch.device("cpu"))
        assert limit is not None and limit.counts == levels and limit.standard_error is not None
        assert limit.values[0] == pytest.approx(plain[-1], rel=1e-9)
        limits.append(limit.infinity)
        assert limit.standard_error >= error
        within += abs(limit.infinity - truth) < 2 * limit.standard_error
    bias, spread = np.mean(plain) - truth, np.std(limits) / sets**0.5
    assert bias > 30 * np.std(plain) / sets**0.5
    assert spread < 0.05 * bias / 3
    assert abs(np.mean(limits) - truth) < 3 * spread
    assert within >= 21


def test_the_limit_is_that_of_a_parabola_in_one_over_n() -> None:
    """Of the values that it reports, by NumPy's fit; its error is at least the difference to a line by hand."""
    x, reference = correlated(400, 8, 3), gaussian_stats(correlated(4000, 8, 4, 1.1, 0.2))
    limit = extrapolate(x, reference, 4, 0.5, 0, torch.device("cpu"))
    assert limit is not None
    wanted = np.polynomial.polynomial.polyfit(1 / np.array(limit.counts), limit.values, 2)[0]
    assert limit.infinity == pytest.approx(wanted, rel=1e-6)
    line = 2 * limit.values[0] - limit.values[1]
    assert limit.standard_error == pytest.approx((0.5**2 + (wanted - line) ** 2) ** 0.5, rel=1e-6)
    unknown = extrapolate(x, reference, 4, None, 0, torch.device("cpu"))
    assert unknown is not None and unknown.standard_error is None
    assert unknown.infinity == pytest.approx(limit.infinity, rel=1e-9)  # LAPACK rounds by how memory is aligned


def test_no_extrapolation_from_too_few() -> None:
    """Eight samples per feature, and three counts, are the least."""
    x, device = correlated(128, 16, 0), torch.device("cpu")
    assert extrapolate(x, gaussian_stats(x), 4, 0.0, 0, device) is not None
    assert extrapolate(x, gaussian_stats(x), 2, 0.0, 0, device) is None
    assert extrapolate(x[1:], gaussian_stats(x), 4, 0.0, 0, device) is None
    with pytest.raises(ValueError, match="at least 2 replicates"):
        bootstrap_interval(1.0, torch.zeros(4), 1, 0.95, 0)
