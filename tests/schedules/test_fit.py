"""Fits of curves to points, against curves that are known, a convex program, and the files and names they come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from families import FAMILIES
from scipy.optimize import nnls

from lwd.errors import UserError
from lwd.probe.fit import fit_curve, fit_points, fit_schedule, read_points, start_of
from lwd.schedules import ConvexSplineCurve, Curve, IdentityCurve, OffsetCurve, PolynomialCurve, Schedule
from lwd.schedules.distance import TAU, curve_distance, schedule_distances
from lwd.schedules.fixed import PowerOfTime

DELTA = 0.3


def points_of(curve: Curve) -> tuple[torch.Tensor, torch.Tensor]:
    return TAU, curve(TAU)[0].detach()


@pytest.mark.parametrize("name", ["polynomial", "convex spline", "power", "a user's"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_curve_is_found_again_from_its_points(name: str, seed: int) -> None:
    """1e-3 is asked; a curve of the family passes through all points, so that only the search's tolerance is left."""
    family = FAMILIES[name]
    curve = family.drawn(seed, scale=1.5)
    fit = fit_curve(family.new(), points_of(curve))
    assert curve_distance(fit.curve, curve) < 1e-3
    assert fit.largest == pytest.approx(curve_distance(fit.curve, curve), abs=1e-9)
    assert fit.curve.start().identity() == family.new().identity()  # of the same settings


@pytest.mark.parametrize("seed", [0, 1])
def test_twelve_points_out_of_order_are_enough_for_a_polynomial(seed: int) -> None:
    curve = FAMILIES["polynomial"].drawn(seed)
    tau = torch.rand(12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert curve_distance(fit_curve(PolynomialCurve(4), (tau, curve(tau)[0].detach())).curve, curve) < 1e-3


@pytest.mark.parametrize("degree", [2, 4, 6])
def test_no_polynomial_is_nearer_to_the_offset(degree: int) -> None:
    """Eq. 41 is linear in p, so that the best is a least-squares problem on the simplex: scipy's non-negative least
    squares with a heavy row for sum p = 1 solves it apart from our search."""
    target = OffsetCurve(DELTA)
    tau, t = (values.numpy() for values in points_of(target))
    heavy = 1e4
    monomials = np.stack([tau ** (m + 1) for m in range(degree + 1)], axis=1)
    best, _ = nnls(np.vstack([monomials, np.full(degree + 1, heavy)]), np.append(t, heavy))
    least = float(np.sqrt(np.mean((monomials @ (best / best.sum()) - t) ** 2)))
    found = fit_curve(PolynomialCurve(degree), points_of(target))
    assert least > 0.04  # there is something to be nearer to
    # shares of zero are reached in the limit of rho alone
    assert found.rms == pytest.approx(least, rel=1e-3)


@pytest.mark.parametrize("bins", [8, 16])
def test_a_spline_fits_the_offset(bins: int) -> None:
    """The follower's kink lies inside a bin, over which the spline's slope grows from 0 to 1.3: with the kink in the
    middle it is off by 1.3 / 8 of a bin there. Twice that is allowed: 0.041 and 0.020 (found: 0.036 and 0.015)."""
    fit = fit_curve(ConvexSplineCurve(bins), points_of(OffsetCurve(DELTA)))
    assert fit.rms < fit.largest < 2 * (1 + DELTA) / 8 / bins
    assert fit_curve(PolynomialCurve(), points_of(OffsetCurve(DELTA))).largest > 0.1  # which a polynomial cannot


def test_a_schedule_is_fitted_group_by_group_and_its_leader_kept() -> None:
    source = Schedule.offset(("a", "b", "c"), "b", DELTA)
    fitted, fits = fit_schedule(source, "b", ConvexSplineCurve())
    assert fitted.names == source.names and fitted["b"].identity() == source["b"].identity()
    assert set(fits) == {"a", "c"} == set(fitted.learned)
    assert not any(p.requires_grad for p in fitted.parameters())
    with pytest.raises(ValueError, match="leader 'd'"):
        fit_schedule(source, "d", ConvexSplineCurve())


def test_points_make_a_schedule_led_by_the_identity(tmp_path: Path) -> None:
    curves = {"a": FAMILIES["polynomial"].drawn(0), "c": FAMILIES["polynomial"].drawn(1)}
    tau = torch.tensor([0.9, 0.1, 0.3, 0.5, 0.7, 0.2], dtype=torch.float64)
    columns = [tau.tolist(), *(curves[name](tau)[0].tolist() for name in ("c", "a"))]
    rows = [",".join(map(str, row)) for row in zip(*columns, strict=True)]
    (tmp_path / "p.csv").write_text("\n".join(["\ufefftau,c,a", *rows, ""]), encoding="utf-8")
    schedule, _ = fit_points(read_points(tmp_path / "p.csv", ["a", "c"]), ("a", "b", "c"), "b", PolynomialCurve())
    assert isinstance(schedule["b"], IdentityCurve)
    for name, curve in curves.items():
        assert curve_distance(schedule[name], curve) < 1e-3
    schedule.save(tmp_path / "schedule.json")
    assert Schedule.load(tmp_path / "schedule.json").hash() == schedule.hash()
    with pytest.raises(ValueError, match="each but it needs points"):
        fit_points(read_points(tmp_path / "p.csv", ["a", "c"]), ("a", "b"), "b", PolynomialCurve())


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "the header must read tau,t; it reads ''"),
        ("tau,x\n0,0\n1,1\n", "the header must read tau,t; it reads 'tau,x'"),
        ("tau,t\n0,0\n", "1 points; a curve needs two or more"),
        ("tau,t\n0,0\n0.5,1.2\n", "row 2: must be 2 numbers from 0 to 1, got '0.5,1.2'"),
        ("tau,t\n0,0\n0.5,nan\n", "row 2: must be 2 numbers"),
        ("tau,t\n0,0,0\n0.5,0.1\n", "row 1: must be 2 numbers"),
        ('tau,t\n"0,0\n', "not a CSV file"),
    ],
)
def test_tables_of_another_form_give_one_line(text: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(UserError) as error:
        read_points(tmp_path / "p.csv", ["a"])
    assert str(error.value).startswith(f"{tmp_path / 'p.csv'}: ") and line in str(error.value)


def test_what_cannot_be_fitted_is_refused() -> None:
    points = (TAU[:4], TAU[:4])
    with pytest.raises(UserError, match="4 points do not fix the 5 parameters of the polynomial curve"):
        fit_curve(PolynomialCurve(), points)
    with pytest.raises(ValueError, match="nothing to learn"):
        fit_curve(IdentityCurve(), points)
    for family, size, line in (
        ("spline", None, "unknown curve kind 'spline'"),
        ("polynomial", 0, "degree must be at least 1"),
        ("power", 3, "has 0 settings"),
        ("offset", None, "nothing to learn"),
    ):
        with pytest.raises(UserError, match=line):
            start_of(family, size)
    assert start_of("convex-spline", 5).identity() == ConvexSplineCurve(5).identity()


def test_distances_of_schedules_at_the_leaders_time() -> None:
    """Closed forms: max s - s^2 = 1/4; an offset follows by delta; and a change of global time changes nothing."""
    names = ("a", "b")
    synchronous = Schedule.synchronous(names)
    square = Schedule({"a": PowerOfTime(2), "b": IdentityCurve()})
    assert schedule_distances(square, synchronous, "b") == {"a": pytest.approx(0.25, abs=1e-12)}
    # led by a: b is at sqrt(s) where a is at s, and sqrt(s) - s is 1/4 at most, at s = 1/4, a point of the grid
    assert schedule_distances(square, synchronous, "a") == {"b": pytest.approx(0.25, abs=1e-9)}
    offset = Schedule.offset(names, "b", DELTA)
    assert schedule_distances(offset, synchronous, "b") == {"a": pytest.approx(DELTA, abs=1e-12)}
    faster = Schedule({"a": PowerOfTime(6), "b": PowerOfTime(3)})  # `square` at tau^3
    assert schedule_distances(faster, square, "b")["a"] < 1e-9 < curve_distance(faster["a"], square["a"])
    with pytest.raises(ValueError, match="not the same groups"):
        schedule_distances(square, Schedule.synchronous(("a", "c")), "b")
