"""The criterion of collapse, against curves whose areas and masses are known."""

from __future__ import annotations

import pytest
import torch

from lwd.schedules import IdentityCurve, PolynomialCurve, Schedule
from lwd.schedules.collapse import Collapse, Criterion, assess, distance, distance_from_collapse, mass


def schedule(rho: list[float]) -> Schedule:
    learned = Schedule.learnable(["a", "b"], "b", degree=len(rho) - 1)
    curve = learned["a"]
    assert isinstance(curve, PolynomialCurve)
    with torch.no_grad():
        curve.rho.copy_(torch.tensor(rho))
    return learned


def mixture(*p: float) -> PolynomialCurve:
    """The curve sum_m p_m tau^(m+1): a_m = (m + 1) p_m, and rho is softplus's inverse of it."""
    a = torch.tensor([(m + 1) * max(share, 1e-12) for m, share in enumerate(p)], dtype=torch.float64)
    return PolynomialCurve.from_rho(torch.log(torch.expm1(a)).float())


def test_the_extremes() -> None:
    assert distance_from_collapse(schedule([-50, -50, -50, -50, 5])) == pytest.approx(0, abs=1e-9)
    assert distance_from_collapse(schedule([5, -50, -50, -50, -50])) == pytest.approx(1, abs=1e-9)
    assert distance_from_collapse(Schedule.synchronous(["a", "b"])) is None
    assert assess(Schedule.synchronous(["a", "b"]), Criterion()) is None


@pytest.mark.parametrize("rho", [[0.0, 1.0, -1.0, 0.5, 2.0], [1.0, 0.0], [-2.0, 3.0, 0.0]])
def test_it_is_the_ratio_of_areas(rho: list[float]) -> None:
    """Against the trapezoid rule on 200 001 points (error 1e-10)."""
    one = schedule(rho)
    tau = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    extremal = tau ** len(rho)
    ratio = torch.trapezoid(one["a"](tau)[0] - extremal, tau) / torch.trapezoid(tau - extremal, tau)
    assert distance_from_collapse(one) == pytest.approx(ratio.item(), abs=1e-7)


@pytest.mark.parametrize("rho", [[0.0, 1.0, -1.0, 0.5, 2.0], [1.0, 0.0], [-2.0, 3.0, 0.0]])
def test_the_mass_is_the_leading_coefficient(rho: list[float]) -> None:
    """p_M is the coefficient of tau^(M+1) in t, read off a polynomial fit in float64 (error 1e-8)."""
    curve = PolynomialCurve.from_rho(torch.tensor(rho))
    tau = torch.linspace(0, 1, len(rho) + 1, dtype=torch.float64)
    powers = tau[:, None] ** torch.arange(len(rho) + 1)
    coefficients = torch.linalg.solve(powers, curve(tau)[0].detach())
    assert mass(curve) == pytest.approx(coefficients[-1].item(), abs=1e-7)


# rho is kept in float32, so areas and masses are those of p to about 1e-6.
@pytest.mark.parametrize(
    ("p", "d", "collapsed"),
    [
        ((0, 0, 0, 0, 1), 0.0, True),
        ((0.05, 0, 0, 0, 0.95), 0.05, True),
        ((0, 0, 0, 0.4, 0.6), 0.04, True),
        ((0, 0, 0, 0.9, 0.1), 0.09, False),  # near, but on tau^4: the mass says no
        ((0, 0, 0, 0.52, 0.48), 0.052, False),
        ((0.3, 0, 0, 0, 0.7), 0.3, False),  # most of the mass, but far: the distance says no
        ((0.11, 0, 0, 0, 0.89), 0.11, False),
        ((1, 0, 0, 0, 0), 1.0, False),
        ((0, 1), 0.0, True),
        ((0.6, 0.4), 0.6, False),
    ],
)
def test_both_measures_together(p: tuple[float, ...], d: float, collapsed: bool) -> None:
    curve = mixture(*p)
    assert (distance(curve), mass(curve)) == (pytest.approx(d, abs=2e-6), pytest.approx(p[-1], abs=2e-6))
    assert Criterion().holds(curve) is collapsed


def test_each_bounds_the_other() -> None:
    """w_(M-1) (1 - p_M) <= d <= 1 - p_M, over random curves of every degree."""
    torch.manual_seed(0)
    for degree in (1, 2, 4, 7):
        w = (1 / (degree + 1) - 1 / (degree + 2)) / (1 / 2 - 1 / (degree + 2))
        for _ in range(50):
            curve = PolynomialCurve.from_rho(4 * torch.randn(degree + 1))
            d, rest = distance(curve), 1 - mass(curve)
            assert w * rest - 1e-9 <= d <= rest + 1e-9


def test_one_collapsed_group_is_enough_but_by_both_of_its_own_measures() -> None:
    near, heavy, stable = mixture(0, 0, 0, 0.9, 0.1), mixture(0.3, 0, 0, 0, 0.7), mixture(1, 0, 0, 0, 0)
    mixed = Schedule({"a": near, "b": heavy, "c": IdentityCurve()})
    found = assess(mixed, Criterion())
    assert found == Collapse(pytest.approx(0.09, abs=2e-6), pytest.approx(0.1, abs=2e-6), collapsed=False)
    worst = assess(Schedule({"a": stable, "b": near, "c": mixture(0.099, 0, 0, 0, 0.901)}), Criterion())
    assert worst == Collapse(pytest.approx(0.099, abs=2e-6), pytest.approx(0.901, abs=2e-6), collapsed=True)


def test_the_thresholds_are_strict() -> None:
    """So that 0 below means never, and 1 below with a mass of 0 always but for the exact identity."""
    extremal = mixture(0, 0, 0, 0, 1)
    assert not Criterion(distance=0, mass=0).holds(extremal)
    assert not Criterion(distance=1, mass=1).holds(extremal)
    assert Criterion(distance=1, mass=0).holds(PolynomialCurve())
