"""The learnable curve against Eq. 40-42, and the fixed curves against their closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lwd.schedules import IdentityCurve, OffsetCurve, PolynomialCurve

GRID = torch.linspace(0, 1, 65)
REPRODUCIBLY = settings(derandomize=True, database=None, deadline=None)
RHOS = st.integers(1, 6).flatmap(
    lambda degree: st.lists(st.floats(-12, 12, width=32), min_size=degree + 1, max_size=degree + 1)
)
EXTREME_RHOS = {
    "all very negative": [-200.0] * 5,
    "all -1e4": [-1e4] * 5,
    "all 1e4": [1e4] * 5,
    "collapsed": [-1e4, -1e4, -1e4, -1e4, 1e4],
    "identity": [1e4, -1e4, -1e4, -1e4, -1e4],
    "mixed": [-1e4, 1e4, 0.0, -200.0, 200.0],
    "around the switch to exp": [-14.99, -15.0, -15.01, -16.0, -14.0],
    "float32 softplus underflows": [-104.0, -90.0, -88.0, -110.0, -300.0],
}


def polynomial(rho, dtype=torch.float32):
    curve = PolynomialCurve(degree=len(rho) - 1).to(dtype)
    with torch.no_grad():
        curve.rho.copy_(torch.as_tensor(rho, dtype=dtype))
    return curve


def literal(rho, tau):
    """Eq. 40 and 41 word by word in Python floats, with a softplus that neither overflows nor cancels."""
    a = [max(r, 0.0) + math.log1p(math.exp(-abs(r))) for r in rho]
    z = sum(a_m / (m + 1) for m, a_m in enumerate(a))
    rate = sum(a_m * tau**m for m, a_m in enumerate(a)) / z
    t = sum(a_m / (m + 1) * tau ** (m + 1) for m, a_m in enumerate(a)) / z
    return t, rate


# Eq. 40-42


@settings(REPRODUCIBLY, max_examples=500)
@given(RHOS)
def test_every_rho_gives_a_convex_increasing_curve_below_the_identity(rho):
    """Exactly, in float32: sums and products of non-negative numbers round monotonically."""
    t, rate = polynomial(rho)(GRID)
    assert t.dtype == rate.dtype == torch.float32
    assert t[0] == 0 and t[-1] == 1
    assert (t.diff() > 0).all()
    assert (t <= GRID).all()
    assert (rate >= 0).all()
    assert (rate.diff() >= 0).all()


@settings(REPRODUCIBLY, max_examples=200)
@given(RHOS)
def test_value_and_rate_are_the_papers_formulas(rho):
    curve = polynomial(rho)
    t, rate = curve(GRID.double())
    for i in (0, 1, 20, 40, 64):
        expected_t, expected_rate = literal(rho, GRID[i].item())
        # 1e-7: float32 rounding of the constants log(m + 1)
        assert t[i].item() == pytest.approx(expected_t, rel=2e-7, abs=1e-15)
        assert rate[i].item() == pytest.approx(expected_rate, rel=2e-7, abs=1e-15)


@settings(REPRODUCIBLY, max_examples=200)
@given(RHOS)
def test_value_is_convex_by_its_second_differences(rho):
    t, _ = polynomial(rho)(GRID.double())
    assert (t.diff(n=2) >= -1e-15).all()  # a few roundings of numbers up to 1


@settings(REPRODUCIBLY, max_examples=150)
@given(RHOS)
def test_rate_is_the_derivative_of_the_value(rho):
    tau = GRID.double().requires_grad_()
    t, rate = polynomial(rho)(tau)
    (slope,) = torch.autograd.grad(t.sum(), tau)
    torch.testing.assert_close(slope, rate, rtol=1e-13, atol=1e-15)  # two orders of summation in float64


@settings(REPRODUCIBLY, max_examples=100)
@given(RHOS)
def test_coefficients_are_the_normalised_softplus_of_rho(rho):
    curve = polynomial(rho)
    a = F.softplus(torch.tensor(rho, dtype=torch.float64))
    z = (a / torch.arange(1, len(rho) + 1)).sum()
    # float32 log(m + 1), and softplus's own switch to the identity at 20
    torch.testing.assert_close(curve.coefficients(), a / z, rtol=2e-7, atol=1e-12)
    torch.testing.assert_close(curve.mixture().sum().item(), 1.0, rtol=1e-15, atol=0)


def test_gradients_with_respect_to_rho_match_finite_differences():
    tau = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0], dtype=torch.float64)
    rho = torch.tensor([0.3, -2.0, 1.5, -0.4, 2.2], dtype=torch.float64, requires_grad=True)
    curve = PolynomialCurve(4).double()

    def value_and_rate(rho, tau):
        return torch.func.functional_call(curve, {"rho": rho}, (tau,))

    # gradcheck's defaults in float64: differences of step 1e-6 against rtol 1e-3, atol 1e-5
    assert torch.autograd.gradcheck(value_and_rate, (rho, tau.requires_grad_()))


@pytest.mark.parametrize("rho", [pytest.param(rho, id=name) for name, rho in EXTREME_RHOS.items()])
def test_extreme_rho_stays_finite_in_value_and_gradient(rho):
    curve = polynomial(rho)
    tau = GRID.clone().requires_grad_()
    t, rate = curve(tau)
    assert t[0] == 0 and t[-1] == 1
    assert (t.diff() >= 0).all() and (t <= GRID).all() and (rate >= 0).all() and (rate <= 5).all()
    for output in (t, rate):
        gradients = torch.autograd.grad(output.square().sum(), (curve.rho, tau), retain_graph=True)
        assert all(gradient.isfinite().all() for gradient in gradients)
    assert curve.inverse(GRID).isfinite().all()


@pytest.mark.parametrize("shift", [-20.0, -200.0, -9000.0])
def test_where_softplus_is_exponential_a_common_shift_changes_nothing(shift):
    """a_m = exp(rho_m) there, so the factor cancels in Z; a float32 softplus would divide 0 by 0."""
    base = torch.tensor([0.0, 1.0, -1.0, 0.5, 2.0])
    t, rate = polynomial(base + shift)(GRID.double())
    p = torch.exp(base.double()) / torch.arange(1, 6)
    p = p / p.sum()
    powers = GRID.double()[:, None] ** torch.arange(1, 6)
    # 1e-3: at -9000, float32 rho itself is only good to 5e-4
    tolerance = 1e-3 if shift < -1000 else 1e-5
    torch.testing.assert_close(t, powers @ p, rtol=0, atol=tolerance)
    torch.testing.assert_close(
        rate, GRID.double()[:, None] ** torch.arange(5) @ (p * torch.arange(1, 6)), rtol=0, atol=5 * tolerance
    )


def test_very_negative_rho_still_receives_a_gradient():
    """Also below the switch to exp: a dead rho could never leave the collapsed curve."""
    curve = polynomial([-200.0, -200.0, -200.0, -200.0, -199.0])
    curve(torch.tensor([0.5]))[0].sum().backward()
    assert (curve.rho.grad.abs() > 1e-3).all()


@pytest.mark.parametrize("degree", [1, 4, 7])
def test_a_new_curve_is_close_to_the_identity(degree):
    curve = PolynomialCurve(degree)
    t, rate = curve(GRID)
    assert curve.rho.shape == (degree + 1,) and curve.rho.requires_grad
    assert (GRID - t).max() < 0.01  # t ~ tau: softplus(-5) = 0.0067 against softplus(rho_0) = 1
    assert (rate - 1).abs().max() < 0.06
    assert curve.coefficients()[0].item() == pytest.approx(1, abs=0.02)
    assert F.softplus(curve.rho[0]).item() == pytest.approx(1, abs=1e-6)  # a_0 = 1, in float32


def test_degree_defaults_to_four_and_must_be_positive():
    assert PolynomialCurve().rho.shape == (5,)
    with pytest.raises(ValueError, match="degree"):
        PolynomialCurve(degree=0)


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_the_collapsed_curve_is_the_highest_power(degree):
    t, rate = polynomial([-1e4] * degree + [10.0])(GRID)
    torch.testing.assert_close(t, GRID ** (degree + 1), rtol=1e-6, atol=0)  # float32 powers
    torch.testing.assert_close(rate, (degree + 1) * GRID**degree, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(), (1,), (3, 2), (0,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("curve", [PolynomialCurve(3), IdentityCurve(), OffsetCurve(0.3), OffsetCurve(0.3, leads=True)])
def test_any_shape_and_dtype_of_tau_comes_back(curve, shape, dtype):
    tau = torch.full(shape, 0.5, dtype=dtype)
    for result in (*curve(tau), curve.inverse(tau)):
        assert result.shape == shape and result.dtype == dtype


# the inverse


@settings(REPRODUCIBLY, max_examples=100)
@given(RHOS)
def test_inverse_undoes_the_curve(rho):
    curve = polynomial(rho)
    tau = curve.inverse(GRID.double())
    assert (tau >= 0).all() and (tau <= 1).all()
    # a few roundings of numbers up to 1, and 0.86^64 of the way to a root of order seven at zero
    torch.testing.assert_close(curve(tau)[0], GRID.double(), rtol=0, atol=1e-14)
    t, rate = curve(GRID.double())
    well_posed = rate > 1e-2  # elsewhere tau is not determined by a rounded t
    torch.testing.assert_close(curve.inverse(t)[well_posed], GRID.double()[well_posed], rtol=0, atol=1e-13)


@pytest.mark.parametrize("rho", [pytest.param(rho, id=name) for name, rho in EXTREME_RHOS.items()])
def test_inverse_of_extreme_curves(rho):
    curve = polynomial(rho)
    tau = curve.inverse(GRID)
    torch.testing.assert_close(curve(tau)[0], GRID, rtol=1e-6, atol=1e-7)  # float32
    assert (tau >= GRID).all() and tau[-1] == 1


@pytest.mark.parametrize("rho", [[0.3, -2.0, 1.5, -0.4, 2.2], [-6.0, -6.0, -6.0, -6.0, 3.0]])
def test_implicit_gradients_of_the_inverse_match_finite_differences(rho):
    t = torch.tensor([0.05, 0.3, 0.7, 0.95], dtype=torch.float64, requires_grad=True)
    curve = polynomial(rho, torch.float64)
    direction = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    gradient_t, gradient_rho = torch.autograd.grad((direction * curve.inverse(t)).sum(), (t, curve.rho))

    def value(rho, t):
        return (direction * polynomial(rho, torch.float64).inverse(t)).sum().item()

    h = 1e-5  # central differences: truncation h^2 and rounding 1e-16 / h, both below 1e-9
    start, times = torch.tensor(rho, dtype=torch.float64), t.detach()
    for i in range(len(rho)):
        step = h * torch.eye(len(rho), dtype=torch.float64)[i]
        difference = (value(start + step, times) - value(start - step, times)) / (2 * h)
        assert gradient_rho[i].item() == pytest.approx(difference, rel=1e-6, abs=1e-8)
    for i in range(len(t)):
        step = h * torch.eye(len(t), dtype=torch.float64)[i]
        difference = (value(start, times + step) - value(start, times - step)) / (2 * h)
        assert gradient_t[i].item() == pytest.approx(difference, rel=1e-6, abs=1e-8)


def test_the_inverses_gradients_are_finite_at_both_ends():
    for rho in (*EXTREME_RHOS.values(), [0.0] * 5):
        curve = polynomial(rho)
        t = torch.tensor([0.0, 1.0], requires_grad=True)
        gradients = torch.autograd.grad(curve.inverse(t).sum(), (t, curve.rho))
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_the_inverses_slope_at_one_is_that_of_the_curve():
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        curve = PolynomialCurve.from_rho(4 * torch.randn(5, generator=generator))
        t = torch.ones((), dtype=torch.float64, requires_grad=True)
        tau = curve.inverse(t)
        (slope,) = torch.autograd.grad(tau, t)
        assert slope.item() == pytest.approx(1 / curve(tau)[1].item(), rel=1e-9)


# the fixed curves


def test_the_identity():
    curve = IdentityCurve()
    t, rate = curve(GRID)
    assert torch.equal(t, GRID) and torch.equal(rate, torch.ones_like(GRID))
    assert torch.equal(curve.inverse(GRID), GRID)
    assert curve.kinks == ()


@pytest.mark.parametrize("delta", [0.0, 0.1, 0.3, 0.5, 1.7])
def test_the_offset_halves_are_sfds_formulas(delta):
    """With s = tau (1 + Delta): the leader at min(s, 1), a follower at max(s - Delta, 0)."""
    leader, follower = OffsetCurve(delta, leads=True), OffsetCurve(delta)
    for i in range(1000):
        tau = (i + 0.5) / 1000
        s = tau * (1 + delta)
        (t_sem, rate_sem), (t_tex, rate_tex) = (c(torch.tensor(tau, dtype=torch.float64)) for c in (leader, follower))
        assert t_sem.item() == pytest.approx(min(s, 1), abs=1e-15)  # one rounding
        assert t_tex.item() == pytest.approx(max(s - delta, 0), abs=1e-15)
        assert rate_sem.item() == (1 + delta if s < 1 else 0)
        assert rate_tex.item() == (1 + delta if s > delta else 0)


@pytest.mark.parametrize("delta", [0.0, 0.1, 0.3, 0.5, 0.9, 1.7])
@pytest.mark.parametrize("leads", [True, False])
def test_the_offset_halves_start_at_zero_and_end_at_one(delta, leads):
    t, _ = OffsetCurve(delta, leads=leads)(torch.tensor([0.0, 1.0]))
    assert t.tolist() == [0, 1]


@pytest.mark.parametrize("delta", [0.1, 0.3, 1.7])
@pytest.mark.parametrize("leads", [True, False])
def test_the_kink_is_where_the_rate_jumps(delta, leads):
    curve = OffsetCurve(delta, leads=leads)
    (kink,) = curve.kinks
    assert kink == pytest.approx(1 / (1 + delta) if leads else delta / (1 + delta), abs=1e-16)
    _, rate = curve(torch.tensor([kink - 1e-9, kink + 1e-9], dtype=torch.float64))
    assert rate.tolist() == ([1 + delta, 0] if leads else [0, 1 + delta])


@pytest.mark.parametrize("leads", [True, False])
def test_without_an_offset_there_is_no_kink(leads):
    curve = OffsetCurve(0.0, leads=leads)
    assert curve.kinks == ()
    t, rate = curve(GRID)
    assert torch.equal(t, GRID) and torch.equal(rate, torch.ones_like(GRID))


@pytest.mark.parametrize("delta", [0.0, 0.1, 0.3, 1.7])
@pytest.mark.parametrize("leads", [True, False])
def test_the_offset_inverse(delta, leads):
    """Where the group waits, its last waiting moment (follower at 0) and its first (leader at 1)."""
    curve = OffsetCurve(delta, leads=leads)
    tau = curve.inverse(GRID.double())
    torch.testing.assert_close(curve(tau)[0], GRID.double(), rtol=0, atol=4e-16)  # two roundings
    if delta:
        assert tau[-1 if leads else 0].item() == pytest.approx(curve.kinks[0], abs=1e-15)


@pytest.mark.parametrize("delta", [-0.1, float("nan")])
def test_a_negative_offset_is_refused(delta):
    with pytest.raises(ValueError, match="delta"):
        OffsetCurve(delta)
