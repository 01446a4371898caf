"""Each family beside the polynomial against an implementation that shares nothing with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from families import FAMILIES, Family
from scipy.interpolate import make_interp_spline
from torch.nn import functional as F

from lwd.schedules import ConvexSplineCurve, PowerCurve, RationalQuadraticCurve
from lwd.schedules.collapse import distance, extremal, mass
from lwd.schedules.rational_quadratic import MIN_BIN, MIN_RATE

TAU = torch.linspace(0, 1, 403, dtype=torch.float64)


@pytest.mark.parametrize("bins", [1, 3, 8])
@pytest.mark.parametrize("seed", range(4))
def test_the_rational_quadratic_spline_is_that_of_transformers(bins: int, seed: int) -> None:
    """Its port of Durkan et al.'s code, on [-1/2, 1/2] instead of [0, 1]; forwards and backwards, float64."""
    vits = pytest.importorskip("transformers.models.vits.modeling_vits")
    curve = Family(RationalQuadraticCurve, {"bins": bins}).drawn(seed, 1.5)
    parts = [p.detach().double().expand(len(TAU), -1) for p in curve.parameters()]
    bounds = {"tail_bound": 0.5, "min_bin_width": MIN_BIN, "min_bin_height": MIN_BIN, "min_derivative": MIN_RATE}
    wanted, log_rate = vits._rational_quadratic_spline(TAU - 0.5, *parts, reverse=False, **bounds)
    t, rate = curve(TAU)
    # its knots are rounded at another origin, and its sums have terms that cancel
    torch.testing.assert_close(t, wanted + 0.5, rtol=0, atol=1e-12)
    torch.testing.assert_close(rate, log_rate.exp(), rtol=1e-9, atol=0)
    back, _ = vits._rational_quadratic_spline(TAU - 0.5, *parts, reverse=True, **bounds)
    torch.testing.assert_close(curve.inverse(TAU), back + 0.5, rtol=0, atol=1e-10)


@pytest.mark.parametrize("bins", [1, 2, 5, 8])
@pytest.mark.parametrize("seed", range(4))
def test_the_convex_spline_is_scipys_integral_of_its_slopes(bins: int, seed: int) -> None:
    """Slopes are cumulated softplus at equal knots, linear between; scaled to end at 1."""
    curve = Family(ConvexSplineCurve, {"bins": bins}).drawn(seed)
    slopes = F.softplus(curve.rho.detach().double()).cumsum(0).numpy()
    rate = make_interp_spline(np.linspace(0, 1, bins + 1), slopes, k=1)
    value = rate.antiderivative()
    t, r = curve(TAU)
    torch.testing.assert_close(t.detach().numpy(), value(TAU) / value(1.0), rtol=0, atol=1e-13)
    torch.testing.assert_close(r.detach().numpy(), rate(TAU) / value(1.0), rtol=1e-12, atol=0)
    assert curve.area() == pytest.approx(value.integrate(0, 1) / value(1.0), abs=1e-13)


@pytest.mark.parametrize("bins", [1, 4, 8])
def test_the_extremal_convex_spline_is_a_parabola_over_the_last_bin(bins: int) -> None:
    last = extremal(ConvexSplineCurve(bins))
    t, rate = last(TAU)
    after = (TAU * bins - (bins - 1)).clamp(min=0)
    torch.testing.assert_close(t, after.square(), rtol=0, atol=1e-13)
    torch.testing.assert_close(rate, 2 * bins * after, rtol=0, atol=1e-12)
    assert last.area() == pytest.approx(1 / (3 * bins), abs=1e-15) and mass(last) == 1


@pytest.mark.parametrize("seed", range(20))
def test_mass_and_distance_bound_each_other_for_the_convex_spline_too(seed: int) -> None:
    curve = Family(ConvexSplineCurve).drawn(seed, 4.0)
    assert distance(curve) <= 1 - mass(curve) + 1e-12


@pytest.mark.parametrize(("lag", "lateness"), [(-5.0, 3.0), (0.0, 0.0), (2.0, -30.0), (1.0, 20.0)])
def test_the_power_curve_is_its_formula(lag: float, lateness: float) -> None:
    curve = FAMILIES["power"].at(torch.tensor([lag, lateness], dtype=torch.float64))
    p, a = 1 / (1 + math.exp(-lag)), 2 + math.log1p(math.exp(lateness))
    t, rate = (x.tolist() for x in curve(TAU))
    for i in (0, 1, 57, 200, 401, 402):
        tau = TAU[i].item()
        # torch's softplus is the identity beyond 20: 2e-9
        assert t[i] == pytest.approx((1 - p) * tau + p * tau**a, abs=1e-8)
        assert rate[i] == pytest.approx(1 - p + p * a * tau ** (a - 1), abs=1e-7)
    assert rate[0] == pytest.approx(1 - p) and rate[-1] == pytest.approx(1 + p * (a - 1))
    assert distance(curve) == pytest.approx(((1 - p) / 2 + p / (a + 1) - 0.0005) / 0.4995, abs=1e-8)


def test_the_power_curve_starts_as_documented() -> None:
    curve = PowerCurve()
    _, share, a = (x.item() for x in curve._shares())
    assert share == pytest.approx(0.0067, abs=1e-4) and a == pytest.approx(5, abs=1e-6)


def test_the_rational_quadratic_spline_may_lead_and_lag() -> None:
    early, late = (
        Family(RationalQuadraticCurve, {"bins": 1}).at(torch.tensor([0.0, 0.0, *ends]))
        for ends in ([3.0, -3.0], [-3.0, 3.0])
    )
    inner = TAU[1:-1]
    assert (early(inner)[0] > inner).all() and (late(inner)[0] < inner).all()
    torch.testing.assert_close(early(TAU)[0], 1 - late(TAU.flip(0))[0], rtol=0, atol=1e-15)  # mirrored
