"""The Fréchet distance against closed forms and SciPy's matrix square root."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from lwd.metrics import fid, frechet_distance, gaussian_stats


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def spd(size, seed, smallest=0.1):
    """A random covariance with eigenvalues of at least ``smallest``."""
    factor = torch.randn(size, size, generator=generator(seed), dtype=torch.float64)
    return factor @ factor.T / size + smallest * torch.eye(size, dtype=torch.float64)


def mean(size, seed):
    return torch.randn(size, generator=generator(100 + seed), dtype=torch.float64)


def rotation(size, seed=9):
    return torch.linalg.qr(torch.randn(size, size, generator=generator(seed), dtype=torch.float64)).Q


def test_one_dimension():
    # (m1 - m2)^2 + (s1 - s2)^2 with deviations 2 and 5: 9 + 9. Float64 rounding of numbers of order 30.
    one = torch.tensor([1.0]), torch.tensor([[4.0]])
    two = torch.tensor([-2.0]), torch.tensor([[25.0]])
    assert frechet_distance(*one, *two) == pytest.approx(18.0, abs=1e-13)


@pytest.mark.parametrize("size", [2, 7, 40])
def test_commuting_covariances(size):
    """With common eigenvectors the distance is |m1 - m2|^2 + sum (sqrt a_i - sqrt b_i)^2."""
    a, b = (0.1 + torch.rand(size, generator=generator(s), dtype=torch.float64) for s in (0, 1))
    q, m1, m2 = rotation(size), mean(size, 0), mean(size, 1)
    expected = float((m1 - m2).square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    distance = frechet_distance(m1, q * a @ q.T, m2, q * b @ q.T)
    # An eigenvalue of order 1 is good to size * 2^-53, its root no worse as none is below 0.01.
    assert distance == pytest.approx(expected, abs=1e-12 * size)


@pytest.mark.parametrize("size", [1, 3, 30, 100])
def test_equals_scipy_s_matrix_root(size):
    m1, m2, s1, s2 = mean(size, 0), mean(size, 1), spd(size, 0), spd(size, 1)
    root = sqrtm((s1 @ s2).numpy())
    expected = float((m1 - m2).square().sum() + s1.trace() + s2.trace()) - 2 * np.trace(root).real
    # sqrtm is accurate to some 1e-13 times the condition of its eigenvectors, here below 1e3.
    assert frechet_distance(m1, s1, m2, s2) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("rank", [0, 1, 5, 11])
def test_singular_covariances(rank):
    """Degenerate Gaussians in the same ``rank`` directions: as if the others were not there."""
    size = 12
    a, b = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    a[:rank] = 1 + torch.arange(rank)
    b[:rank] = 2.0
    q = rotation(size)
    expected = float((a.sqrt() - b.sqrt()).square().sum())
    distance = frechet_distance(mean(size, 0), q * a @ q.T, mean(size, 0), q * b @ q.T)
    # Singular values of F1^T F2: no root of a rounded 0 is taken.
    assert distance == pytest.approx(expected, abs=1e-12)


def test_orthogonal_supports_share_nothing():
    s1, s2 = torch.diag(torch.tensor([3.0, 0, 0])), torch.diag(torch.tensor([0, 5.0, 0]))
    assert frechet_distance(torch.zeros(3), s1, torch.zeros(3), s2) == pytest.approx(8.0, abs=1e-12)  # the two traces


@pytest.mark.parametrize("size", [1, 20, 200])
def test_identical_gaussians_are_at_distance_zero(size):
    m, s = mean(size, 0), spd(size, 0)
    # Traces of some 2 * size cancel: size * 2^-53 each, and the roots' own rounding.
    assert 0 <= frechet_distance(m, s, m, s) < 1e-12 * size


def test_fewer_samples_than_dimensions():
    """As in FID of small runs: 20 samples in 50 dimensions, singular, against themselves and moved."""
    x = torch.randn(20, 50, generator=generator(), dtype=torch.float64)
    m, s = gaussian_stats(x)
    assert 0 <= frechet_distance(m, s, m, s) < 1e-11
    assert frechet_distance(m, s, m + 2, s) == pytest.approx(4 * 50, abs=1e-11)


@pytest.mark.parametrize("counts", [(20, 30), (20, 500), (500, 20), (51, 51), (50, 50), (2, 2), (2, 500)])
def test_the_trace_of_the_root_is_a_nuclear_norm(counts):
    """Independent of covariances: with X, Y the centred samples over sqrt(N - 1), Tr (S1 S2)^(1/2) = |X Y^T|_*."""
    size = 50
    samples = [torch.randn(n, size, generator=generator(i), dtype=torch.float64) for i, n in enumerate(counts)]
    x, y = ((z - z.mean(0)).numpy() / np.sqrt(len(z) - 1) for z in samples)
    root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    means = np.square(samples[0].numpy().mean(0) - samples[1].numpy().mean(0)).sum()
    expected = means + np.square(x).sum() + np.square(y).sum() - 2 * root
    distance = frechet_distance(*gaussian_stats(samples[0]), *gaussian_stats(samples[1]))
    # Rank N - 1 of 50 where N <= 50. The route by eigenvalues would be off by up to 1e-6 there.
    assert distance == pytest.approx(expected, rel=1e-11)


def test_one_point_many_times():
    """All samples of a collapsed generator are one image: the distance to a law is |m1 - m2|^2 + Tr sigma1."""
    m1, s1 = mean(30, 0), spd(30, 0)
    m2, s2 = gaussian_stats(mean(30, 1).expand(10, 30))
    expected = float((m1 - m2).square().sum() + s1.trace())
    assert frechet_distance(m1, s1, m2, s2) == pytest.approx(expected, rel=1e-13)
    assert frechet_distance(m2, s2, m2, s2) == 0


def test_features_that_are_always_zero():
    """Dead features change nothing."""
    m1, m2, s1, s2 = mean(20, 0), mean(20, 1), spd(20, 0), spd(20, 1)
    padded = [torch.nn.functional.pad(x, (0, 5) * x.ndim) for x in (m1, s1, m2, s2)]
    assert frechet_distance(*padded) == pytest.approx(frechet_distance(m1, s1, m2, s2), rel=1e-12)


@pytest.mark.parametrize("condition", [1e2, 1e6, 1e10, 1e14])
def test_ill_conditioned_covariances(condition):
    """Common eigenvectors again, with eigenvalues over many orders of magnitude."""
    size = 40
    a, b = (torch.logspace(0, -math.log10(condition), size, dtype=torch.float64) for _ in range(2))
    b = 1.3 * b.roll(1)
    q = rotation(size)
    expected = float((a.sqrt() - b.sqrt()).square().sum())
    # sigma itself, made in float64, holds eigenvalues below 1e-16 as rounding of up to 1e-16: roots off by 1e-8.
    tolerance = 1e-12 if condition < 1e8 else 1e-7
    assert frechet_distance(mean(size, 0), q * a @ q.T, mean(size, 0), q * b @ q.T) == pytest.approx(
        expected, abs=tolerance
    )


def test_the_published_definition_at_2000_x_64():
    """Heusel et al. 2017 as ADM's evaluator computes it: NumPy's statistics, SciPy's root."""
    x = torch.randn(2000, 64, generator=generator(0)) @ spd(64, 0).float()
    y = 0.2 + torch.randn(2000, 64, generator=generator(1)) @ spd(64, 1).float()
    mu1, mu2 = x.double().numpy().mean(0), y.double().numpy().mean(0)
    sigma1, sigma2 = np.cov(x.numpy(), rowvar=False), np.cov(y.numpy(), rowvar=False)
    root = sqrtm(sigma1.dot(sigma2)).real
    expected = (mu1 - mu2).dot(mu1 - mu2) + np.trace(sigma1) + np.trace(sigma2) - 2 * np.trace(root)
    assert frechet_distance(*gaussian_stats(x), *gaussian_stats(y)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("block", [1, 3, 8, 100])
def test_blocks_do_not_matter(block, monkeypatch):
    arguments = mean(20, 0), spd(20, 0), mean(20, 1), spd(20, 1)
    expected = frechet_distance(*arguments)
    monkeypatch.setattr("lwd.metrics.frechet._BLOCK", block)
    assert frechet_distance(*arguments) == pytest.approx(expected, rel=1e-13)


def test_symmetric():
    one, two = (mean(30, 0), spd(30, 0, 0.0)), (mean(30, 1), spd(30, 1, 0.0))
    # The two orders factor different matrices.
    assert frechet_distance(*one, *two) == pytest.approx(frechet_distance(*two, *one), abs=1e-10)


def test_mean_and_covariance_add_up():
    m1, m2, s1, s2 = mean(10, 0), mean(10, 1), spd(10, 0), spd(10, 1)
    zero = torch.zeros(10)
    together = frechet_distance(m1, s1, m2, s2)
    assert together == pytest.approx(frechet_distance(m1, s1, m2, s1) + frechet_distance(zero, s1, zero, s2), abs=1e-11)
    assert frechet_distance(2 * m1, 4 * s1, 2 * m2, 4 * s2) == pytest.approx(4 * together, rel=1e-12)


def test_accepts_arrays_and_single_precision():
    m1, m2, s1, s2 = mean(6, 0), mean(6, 1), spd(6, 0), spd(6, 1)
    expected = frechet_distance(m1, s1, m2, s2)
    assert frechet_distance(*(x.numpy() for x in (m1, s1, m2, s2))) == expected
    # Inputs rounded to float32 move the result by some 2^-24 of its terms, about 10; computing in float64 adds nothing.
    assert frechet_distance(*(x.float() for x in (m1, s1, m2, s2))) == pytest.approx(expected, abs=1e-5)


# Statistics


def test_statistics_are_numpy_s():
    x = 3 + torch.randn(50, 8, generator=generator(), dtype=torch.float64) @ spd(8, 0)
    m, s = gaussian_stats(x)
    # 50 sums of numbers of order 10 in float64.
    np.testing.assert_allclose(m, x.numpy().mean(0), rtol=0, atol=1e-13)
    np.testing.assert_allclose(s, np.cov(x.numpy(), rowvar=False), rtol=0, atol=1e-12)
    assert m.dtype == s.dtype == torch.float64


def test_statistics_of_single_precision_features_are_taken_in_double():
    x = (1000 + torch.randn(500, 4, generator=generator())).float()
    # The same float32 numbers, summed in float64 on both sides; in float32 the mean alone would be off by 1e-4.
    m, s = gaussian_stats(x)
    np.testing.assert_allclose(m, x.double().numpy().mean(0), rtol=0, atol=1e-10)
    np.testing.assert_allclose(s, np.cov(x.double().numpy(), rowvar=False), rtol=0, atol=1e-10)


def test_the_order_of_samples_does_not_matter():
    x = torch.randn(300, 12, generator=generator())
    order = torch.randperm(300, generator=generator(1))
    for one, two in zip(gaussian_stats(x), gaussian_stats(x[order]), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-13)  # float64 sums in another order


def test_distance_of_samples_approaches_that_of_their_laws():
    n, size = 20_000, 3
    m1, m2, s1, s2 = mean(size, 0), mean(size, 1), spd(size, 0), spd(size, 1)
    samples = [
        m + torch.randn(n, size, generator=generator(i), dtype=torch.float64) @ torch.linalg.cholesky(s).T
        for i, (m, s) in enumerate([(m1, s1), (m2, s2)])
    ]
    estimate = frechet_distance(*gaussian_stats(samples[0]), *gaussian_stats(samples[1]))
    # The squared distance of means (about 5) has a standard error of 2 |m1 - m2| sqrt(2 / n) = 0.045; five of them.
    assert abs(estimate - frechet_distance(m1, s1, m2, s2)) < 0.22


# Errors


def test_features_that_are_no_matrix_or_not_finite():
    with pytest.raises(ValueError, match=r"shape \(N, D\), got \(3,\)"):
        gaussian_stats(torch.zeros(3))
    with pytest.raises(ValueError, match="not finite in row 1"):
        gaussian_stats(torch.tensor([[0.0], [math.nan]]))


@pytest.mark.parametrize("count", [0, 1])
def test_a_covariance_needs_two_samples(count):
    with pytest.raises(ValueError, match=f"at least 2 samples, got {count}"):
        gaussian_stats(torch.zeros(count, 3))


@pytest.mark.parametrize(
    "shapes",
    [
        ((3,), (3, 3), (4,), (4, 4)),
        ((3,), (4, 4), (3,), (3, 3)),
        ((3,), (3, 3), (3,), (3,)),
        ((3,), (3, 3), (1,), (3, 3)),
    ],
)
def test_shapes_that_do_not_match(shapes):
    with pytest.raises(ValueError, match="different widths") as caught:
        frechet_distance(*(torch.zeros(shape) for shape in shapes))
    assert all(str(shape) in str(caught.value) for shape in shapes)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_statistics_that_are_not_finite(place, value):
    args = [torch.zeros(2), torch.eye(2), torch.zeros(2), torch.eye(2)]
    args[place][0] = value
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(*args)


def test_fid_of_features():
    """Of two features without correlation: (m1 - m2)^2 + (s1 - s2)^2 each."""
    a = torch.tensor([[1.0, 2.0], [-1.0, 2.0], [1.0, -2.0], [-1.0, -2.0]], dtype=torch.float64)
    b = 3 * a + torch.tensor([5.0, -1.0])
    spread = (4 / 3) ** 0.5  # of +-1 with divisor N - 1
    assert fid(a, b) == pytest.approx(25 + 1 + (2 * spread) ** 2 + (4 * spread) ** 2, rel=1e-12)
    with pytest.raises(ValueError, match="different widths"):
        fid(a, b[:, :1])
