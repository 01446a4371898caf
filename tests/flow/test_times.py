"""Time distributions against scipy."""

import numpy as np
import pytest
import torch
from scipy import special, stats

from lwd.flow import TIME_DISTRIBUTIONS, logit_normal, uniform

# what seeding.uniform can give at its ends, and numbers between
U = torch.tensor([2.0**-24, 1e-4, 0.01, 0.1, 0.25, 0.5, 0.6, 0.9, 0.999, 1 - 2.0**-24])


def test_uniform_changes_nothing():
    assert torch.equal(uniform(U), U)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.5, 1.0), (0.8, 0.3), (0.0, 2.0)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_logit_normal_has_scipys_quantiles(mean, std, dtype, tolerance):
    """tau = sigmoid(Q), Q the normal quantile; in float32 the inverse CDF's own rounding reaches 1e-5."""
    tau = logit_normal(U.to(dtype), mean, std)
    expected = special.expit(stats.norm(mean, std).ppf(U.double().numpy()))
    np.testing.assert_allclose(tau.numpy(), expected, rtol=tolerance)


def test_logit_normal_defaults_to_sfds_and_stays_inside():
    tau = logit_normal(U)
    assert torch.equal(tau, logit_normal(U, 0.0, 1.0))
    assert (tau > 0).all() and (tau < 1).all() and (tau.diff() > 0).all()
    assert tau[5] == 0.5


def test_logit_normal_samples_are_logit_normal():
    u = (torch.arange(4000) + 0.5) / 4000
    logits = special.logit(logit_normal(u).double().numpy())
    assert stats.kstest(logits, "norm").statistic < 1e-3  # a quantile grid: 1/8000 and float32


def test_the_table_holds_both():
    assert TIME_DISTRIBUTIONS["uniform"] is uniform and TIME_DISTRIBUTIONS["logit_normal"] is logit_normal
