"""Streamed mean and covariance against NumPy's, in any batches, order and number of parts."""

import numpy as np
import pytest
import torch

import lwd.metrics.moments as module
from lwd.metrics import Moments


def features(rows, dim=12, offset=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return offset + torch.randn(rows, dim, generator=generator, dtype=torch.float64) @ mix


def of(*batches, dim=12):
    moments = Moments(dim)
    for batch in batches:
        moments.add(batch)
    return moments


def assert_numpy(moments, x, tolerance):
    np.testing.assert_allclose(moments.mean, x.numpy().mean(0), rtol=0, atol=tolerance)
    np.testing.assert_allclose(moments.covariance(), np.cov(x.numpy(), rowvar=False), rtol=0, atol=tolerance)
    assert moments.count == len(x)


@pytest.mark.parametrize("rows", [2, 7, 300])
@pytest.mark.parametrize("batch", [1, 3, 1000])
@pytest.mark.parametrize("buffer", [1, 5, 2048])
def test_numpy_s(rows, batch, buffer, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", buffer)
    x = features(rows)
    # Entries of order 10, float64, up to 300 merges.
    assert_numpy(of(*torch.split(x, batch)), x, 1e-11)


@pytest.mark.parametrize("dim", [1, 2, 8, 9, 64])
def test_every_width(dim):
    x = features(50, dim)
    moments = of(x, dim=dim)
    np.testing.assert_allclose(moments.covariance(), np.cov(x.numpy(), rowvar=False).reshape(dim, dim), atol=1e-11)
    assert torch.equal(moments.covariance(), moments.covariance().T)


def test_order_does_not_matter(monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 10)
    x = features(200, offset=5.0)
    shuffled = x[torch.randperm(200, generator=torch.Generator().manual_seed(1))]
    one, two = of(*torch.split(x, 7)), of(*torch.split(shuffled, 13))
    # The promise is 1e-9 relative; the entries are of order 10.
    torch.testing.assert_close(one.mean, two.mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(one.covariance(), two.covariance(), rtol=0, atol=1e-11)


def test_a_large_offset_costs_nothing(monkeypatch):
    """Sums of squares would lose everything here: 1e7 squared is 1e14, with 1e-2 to resolve."""
    monkeypatch.setattr(module, "_ROWS", 8)
    x = features(500) + 1e7
    moments = of(*torch.split(x, 3))
    exact = np.cov((x - 1e7).numpy(), rowvar=False)
    # x itself is rounded by 1e-9.
    np.testing.assert_allclose(moments.covariance(), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sizes", [(150, 150), (1, 299), (0, 300), (300, 0), (100, 99, 101)])
def test_parts_add_up(sizes):
    x = features(300)
    parts = [Moments(12).add(part) for part in torch.split(x, list(sizes))]
    whole = Moments(12)
    for part in parts:
        whole.merge(Moments.from_state(part.state()))
    assert_numpy(whole, x, 1e-12)
    # What was merged goes on being usable, and unchanged.
    assert [part.count for part in parts] == list(sizes)
    assert_numpy(whole.add(x), torch.cat([x, x]), 1e-12)


def test_single_precision_is_summed_in_double():
    x = (1000 + features(500)).float()
    assert_numpy(of(*torch.split(x, 50)), x.double(), 1e-9)


def test_a_batch_may_be_overwritten():
    x = features(20)
    buffer = x.clone()
    moments = Moments(12).add(buffer)
    buffer.zero_()
    assert_numpy(moments, x, 1e-13)


def test_reading_in_between_changes_nothing():
    x = features(30)
    moments = Moments(12).add(x[:10])
    moments.mean.zero_()
    moments.covariance()
    moments.state()["scatter"].zero_()
    assert_numpy(moments.add(x[10:]), x, 1e-12)


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few(rows):
    with pytest.raises(ValueError, match=f"at least 2 samples, got {rows}"):
        of(features(rows)).covariance()


@pytest.mark.parametrize("shape", [(3, 11), (12,), (2, 12, 1)])
def test_other_shapes(shape):
    with pytest.raises(ValueError, match=r"shape \(N, 12\), got"):
        Moments(12).add(torch.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(value):
    x = features(5)
    x[3, 2] = value
    with pytest.raises(ValueError, match="not finite in row 3"):
        Moments(12).add(x)


def test_other_widths_do_not_merge():
    with pytest.raises(ValueError, match="12 and 3"):
        Moments(12).merge(Moments(3))
    with pytest.raises(ValueError, match="no state"):
        Moments.from_state(Moments(3).state() | {"scatter": torch.zeros(2, 2)})
