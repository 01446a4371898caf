"""What every curve that can be learned satisfies, the polynomial, the other families and a user's own alike."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from families import FAMILIES, Family, every_family
from torch import Tensor

from lwd.schedules import IdentityCurve, RationalQuadraticCurve, Schedule
from lwd.schedules.collapse import Criterion, assess, distance, extremal, mass

GRID = torch.linspace(0, 1, 65)
SEEDS = range(12)
EXTREMES = (-50.0, 50.0)


def extremes(family: Family) -> list[Any]:
    """All parameters at -50 or +50: every corner of up to five, else forty of them at random and the two pure ones."""
    size = len(family.new().parameter_vector())
    if size <= 5:
        corners = [torch.tensor(corner) for corner in itertools.product(EXTREMES, repeat=size)]
    else:
        generator = torch.Generator().manual_seed(0)
        corners = [50.0 * (2 * torch.randint(0, 2, (size,), generator=generator) - 1).float() for _ in range(40)]
        corners += [torch.full((size,), x) for x in EXTREMES]
    return [family.at(corner) for corner in corners]


def away_from_joints(family: Family, curve: Any, tau: Tensor, by: float) -> Tensor:
    """The ``tau`` at least ``by`` from every jump of t'', where a finite difference sees one smooth piece."""
    joints = family.joints(curve)
    return tau[((tau[:, None] - joints).abs() > by).all(1)] if len(joints) else tau


# value and rate


@every_family
def test_a_curve_goes_from_zero_to_one_without_turning_back(family: Family) -> None:
    """Exactly, in float32, after rounding."""
    for curve in (family.new(), *(family.drawn(seed, 4.0) for seed in SEEDS)):
        t, rate = curve(GRID)
        assert t.dtype == rate.dtype == torch.float32
        assert t[0] == 0 and t[-1] == 1
        assert (t.diff() >= 0).all() and (rate >= 0).all()
        if family.convex:
            assert (t <= GRID).all() and (rate.diff() >= 0).all()


@every_family
def test_a_rate_is_positive_inside(family: Family) -> None:
    for seed in SEEDS:
        curve = family.drawn(seed)
        assert (curve(GRID[1:-1])[1] > 0).all() and (curve(GRID)[0].diff() > 0).all()
        assert curve.kinks == ()


@every_family
def test_the_start_is_the_identity_and_learns(family: Family) -> None:
    curve = family.new()
    tau = GRID.double()
    t, rate = curve(tau)
    assert (t - tau).abs().max() <= family.identity_within
    assert (rate - 1).abs().max() <= family.rate_within
    (t.square().sum() + rate.square().sum()).backward()
    assert all(p.grad.isfinite().all() and (p.grad != 0).any() for p in curve.parameters()) or family.settings == {
        "bins": 1
    }


@every_family
def test_the_rate_is_the_derivative_by_autograd(family: Family) -> None:
    for seed in SEEDS:
        tau = GRID.double().requires_grad_()
        t, rate = family.drawn(seed)(tau)
        (slope,) = torch.autograd.grad(t.sum(), tau)
        torch.testing.assert_close(slope, rate, rtol=1e-11, atol=1e-13)  # two orders of summation in float64


@every_family
def test_the_rate_is_the_derivative_by_finite_differences(family: Family) -> None:
    h = 1e-5  # central: truncation h^2 t''' / 6, up to 1e-6 for steep splines, rounding 1e-11
    for seed in SEEDS:
        curve = family.drawn(seed, 1.0)
        tau = away_from_joints(family, curve, GRID[1:-1].double() + 0.003, h)
        difference = (curve(tau + h)[0] - curve(tau - h)[0]) / (2 * h)
        torch.testing.assert_close(curve(tau)[1], difference, rtol=1e-5, atol=1e-8)


@every_family
def test_the_value_is_the_integral_of_the_rate(family: Family) -> None:
    """Composite trapezoid rule on 100 001 points; t'' is bounded by about 1e3, so the error is below 1e-8 t''."""
    tau = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    t, rate = family.drawn(3, 1.0)(tau)
    torch.testing.assert_close(torch.cumulative_trapezoid(rate, tau), t[1:], rtol=0, atol=1e-8)


@every_family
def test_gradients_of_the_parameters_match_finite_differences(family: Family) -> None:
    """gradcheck's defaults in float64: differences of step 1e-6 against rtol 1e-3, atol 1e-5."""
    curve = family.drawn(5, 1.0).double()
    tau = torch.tensor([0.0, 0.07, 0.31, 0.52, 0.9, 1.0], dtype=torch.float64)
    names = [name for name, _ in curve.named_parameters()]

    def value_and_rate(*values: Tensor) -> tuple[Tensor, Tensor]:
        return torch.func.functional_call(curve, dict(zip(names, values, strict=True)), (tau,))

    assert torch.autograd.gradcheck(value_and_rate, tuple(p.detach().requires_grad_() for p in curve.parameters()))


@every_family
def test_gradients_of_the_rate_in_tau_match_finite_differences(family: Family) -> None:
    curve = family.drawn(5, 1.0).double().requires_grad_(False)
    tau = torch.tensor([0.07, 0.31, 0.52, 0.9, 0.98], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(curve, (tau,))


@every_family
def test_extreme_parameters_stay_finite_in_value_and_gradient(family: Family) -> None:
    for curve in extremes(family):
        tau = GRID.clone().requires_grad_()
        t, rate = curve(tau)
        assert t[0] == 0 and t[-1] == 1 and (t.diff() >= 0).all() and (rate >= 0).all() and rate.isfinite().all()
        for output in (t, rate):
            gradients = torch.autograd.grad(output.square().sum(), (tau, *curve.parameters()), retain_graph=True)
            assert all(gradient.isfinite().all() for gradient in gradients)
        back = curve.inverse(GRID.double())
        torch.testing.assert_close(curve(back)[0], GRID.double(), rtol=0, atol=1e-9)  # rates up to 1e3 times 1e-13
        assert 0 <= distance(curve) <= 1.01 and 0 <= mass(curve) <= 1


@every_family
@pytest.mark.parametrize("shape", [(), (1,), (3, 2), (0,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_any_shape_and_dtype_of_tau_comes_back(family: Family, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tau, curve = torch.full(shape, 0.5, dtype=dtype), family.drawn(0)
    for result in (*curve(tau), curve.inverse(tau)):
        assert result.shape == shape and result.dtype == dtype


# the inverse


@every_family
def test_the_inverse_undoes_the_curve(family: Family) -> None:
    for curve in (family.new(), *(family.drawn(seed, 3.0) for seed in SEEDS)):
        t = GRID.double()
        tau = curve.inverse(t)
        assert (tau >= 0).all() and (tau <= 1).all() and tau[0] == 0 and curve.inverse(GRID)[-1] == 1
        torch.testing.assert_close(
            curve(tau)[0], t, rtol=0, atol=1e-12
        )  # roundings of numbers up to 1, rates up to 1e2
        value, rate = curve(GRID.double())
        well_posed = rate > 1e-2  # elsewhere tau is not determined by a rounded t
        torch.testing.assert_close(curve.inverse(value)[well_posed], GRID.double()[well_posed], rtol=0, atol=1e-12)


@every_family
def test_gradients_of_the_inverse_match_finite_differences(family: Family) -> None:
    """Central differences of step 1e-6: truncation and rounding (1e-14 / 1e-6) well below 1e-6."""
    t = torch.tensor([0.05, 0.3, 0.7, 0.95], dtype=torch.float64, requires_grad=True)
    vector = family.drawn(5, 1.0).double().parameter_vector()
    curve, direction, h = family.at(vector), torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64), 1e-6
    gradients = torch.autograd.grad((direction * curve.inverse(t)).sum(), (t, *curve.parameters()))
    by_t, by_parameters = gradients[0], torch.cat([one.flatten() for one in gradients[1:]])

    def value(vector: Tensor, t: Tensor) -> float:
        return float((direction * family.at(vector).inverse(t)).sum().detach())

    for i, step in enumerate(h * torch.eye(len(vector), dtype=torch.float64)):
        difference = (value(vector + step, t) - value(vector - step, t)) / (2 * h)
        assert by_parameters[i].item() == pytest.approx(difference, rel=1e-5, abs=1e-6)
    for i, step in enumerate(h * torch.eye(len(t), dtype=torch.float64)):
        difference = (value(vector, t + step) - value(vector, t - step)) / (2 * h)
        assert by_t[i].item() == pytest.approx(difference, rel=1e-5, abs=1e-6)


@every_family
def test_gradients_of_the_inverse_are_finite_at_both_ends(family: Family) -> None:
    for curve in (family.new(), *(family.drawn(seed, 5.0) for seed in SEEDS), *extremes(family)):
        t = torch.tensor([0.0, 1.0], requires_grad=True)
        gradients = torch.autograd.grad(curve.inverse(t).sum(), (t, *curve.parameters()))
        assert all(gradient.isfinite().all() for gradient in gradients)


# area, collapse


@every_family
def test_the_area_is_that_of_the_curve(family: Family) -> None:
    """Trapezoid rule on 200 001 points: error t'' / 12 / 200 000^2, below 1e-7 for rates that change by 1e3 in 1e-3."""
    tau = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    for curve in (family.new(), family.drawn(0), family.drawn(1, 4.0), extremal(family.drawn(2))):
        with torch.no_grad():
            wanted = float(torch.trapezoid(curve(tau)[0], tau))
        assert curve.area() == pytest.approx(wanted, abs=1e-6)


@every_family
def test_the_distance_from_collapse_is_one_at_the_identity_and_zero_at_the_extremal_curve(family: Family) -> None:
    start = family.new()
    assert distance(start) == pytest.approx(1, abs=0.02) and mass(start) < 0.02
    assert not Criterion().holds(start)
    last = extremal(start)
    assert distance(last) == pytest.approx(0, abs=1e-12) and last.area() < 1 / 2
    tau = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    curve = family.drawn(4, 1.0)
    ends = extremal(curve)
    with torch.no_grad():
        above, most = (float(torch.trapezoid(x - ends(tau)[0], tau)) for x in (curve(tau)[0], tau))
    assert distance(curve) == pytest.approx(above / most, abs=1e-6)  # the ratio of areas, by the trapezoid rule


LATE_SPLINE = [50.0, *[-50.0] * 14, 50.0, *[-50.0] * 9]
"""Eight bins: all width in the first, all height in the last, the least rates."""
EARLY_SPLINE = [*[-50.0] * 7, 50.0, 50.0, *[-50.0] * 16]


@pytest.mark.parametrize(
    ("name", "vector"),
    [
        ("polynomial", [-50.0] * 4 + [50.0]),
        ("convex spline", [-50.0] * 8 + [50.0]),
        ("convex spline, one bin", [-50.0, 50.0]),
        ("power", [50.0, 50.0]),
        ("rational-quadratic", LATE_SPLINE),
        ("rational-quadratic", EARLY_SPLINE),
    ],
)
def test_a_collapsed_schedule_is_found(name: str, vector: list[float]) -> None:
    """At the end of each family, within what its bounds leave: 1/53 of mean power, bins of 0.001."""
    curve = FAMILIES[name].at(torch.tensor(vector))
    found = assess(Schedule({"a": curve, "b": IdentityCurve(), "c": FAMILIES[name].new()}), Criterion())
    assert found is not None and found.collapsed and found.distance < 0.04 and found.mass > 0.95
    assert (curve.area() > 1 / 2) == (extremal(curve).area() > 1 / 2) == (vector is EARLY_SPLINE)


def test_a_spline_that_waits_and_then_leads_has_not_collapsed() -> None:
    """Half below and half above the identity: its area says neither end."""
    widths, heights = [0.0, -9.0, -9.0, 0.0], [-9.0, 0.0, 0.0, -9.0]
    curve = Family(RationalQuadraticCurve, {"bins": 4}).at(torch.tensor([*widths, *heights, *[0.0] * 5]))
    assert distance(curve) == pytest.approx(1, abs=1e-6) and not Criterion().holds(curve)


@every_family
def test_a_formula_is_one_line(family: Family) -> None:
    for curve in (family.new(), family.drawn(0), extremal(family.new())):
        assert curve.formula() and "\n" not in curve.formula()
