"""Grids of the fixed-step solvers: closed forms, kinks, exact counts, and the solvers' orders on them."""

import math
from itertools import pairwise

import pytest
import torch

from lwd.errors import UserError
from lwd.ode import ArcLength, Shift
from lwd.ode.grids import fixed_grid, uniform
from lwd.ode.integrate import integrate
from lwd.ode.plan import Integration
from lwd.schedules import IdentityCurve, PolynomialCurve, Schedule

NAMES = ("tex", "sem")
OFFSET = Schedule.offset(NAMES, "sem")  # kinks at 0.3 / 1.3 and 1 / 1.3


def points(warp, steps, kinks=()):
    pieces = fixed_grid(warp, steps, kinks)
    assert all(a[-1] == b[0] for a, b in pairwise(pieces))
    return torch.cat([pieces[0][:1], *(p[1:] for p in pieces)])


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_uniform_is_linspace(steps):
    assert torch.equal(points(uniform, steps), torch.linspace(0, 1, steps + 1, dtype=torch.float64))


def test_shift_is_the_field_s_formula_and_which_way_it_goes():
    s = torch.linspace(0, 1, 11, dtype=torch.float64)
    # LightningDiT's sampler shifts by 0.3 with noise at 0: more steps there. SD3 shifts by 3, with noise at 1.
    assert Shift(0.3)(s)[5] == pytest.approx(0.3 * 0.5 / (1 + (0.3 - 1) * 0.5))
    sd3 = 1 - 3 * (1 - s) / (1 + 2 * (1 - s))
    torch.testing.assert_close(Shift(1 / 3)(s), sd3, rtol=0, atol=1e-15)
    grid = points(Shift(0.3), 10)
    assert grid.diff()[0] < 0.05 < 0.2 < grid.diff()[-1]
    torch.testing.assert_close(grid, Shift(0.3)(s), rtol=0, atol=1e-15)


@pytest.mark.parametrize("steps", [3, 4, 10, 26, 50, 51])
@pytest.mark.parametrize("warp", [uniform, Shift(0.3), Shift(4.0), torch.square, ArcLength(OFFSET)])
def test_kinks_are_points_of_the_grid_and_the_count_is_exact(warp, steps):
    grid = points(warp, steps, OFFSET.kinks)
    assert len(grid) == steps + 1 and (grid.diff() > 0).all()
    assert set(OFFSET.kinks) <= set(grid.tolist()) and grid[0] == 0 and grid[-1] == 1


def test_steps_are_shared_out_by_length():
    counts = [len(p) - 1 for p in fixed_grid(uniform, 100, (0.2, 0.9))]
    assert counts == [20, 70, 10]
    assert [len(p) - 1 for p in fixed_grid(uniform, 1, (0.2, 0.9))] == [1, 1, 1]
    # tau = s^2 spends sqrt(0.36) = 0.6 of its steps before 0.36
    assert [len(p) - 1 for p in fixed_grid(torch.square, 10, (0.36,))] == [6, 4]


def test_arc_length_has_equal_chords():
    schedule = Schedule({"tex": PolynomialCurve.from_rho(torch.tensor([-4.0, -4.0, 1.0, 2.0])), "sem": IdentityCurve()})
    with torch.no_grad():
        times = schedule(points(ArcLength(schedule), 2000))[0]
    chords = times.diff(dim=0).norm(dim=1)
    # 2048 straight chords under 2000 points of a curve of bounded curvature: some 1e-3 of a chord.
    assert (chords / chords.mean() - 1).abs().max() < 5e-3
    uneven = schedule(torch.linspace(0, 1, 2001, dtype=torch.float64))[0].detach().diff(dim=0).norm(dim=1)
    assert (uneven / uneven.mean() - 1).abs().max() > 0.5


def test_arc_length_of_the_offset_in_closed_form():
    # One group moves alone in the outer pieces (length 0.3 each), both in the middle (0.7 sqrt 2).
    length = 0.6 + 0.7 * math.sqrt(2)
    s = torch.tensor([0.3 / length, 0.5, 1 - 0.3 / length], dtype=torch.float64)
    expected = torch.tensor([0.3 / 1.3, 0.5, 1 / 1.3], dtype=torch.float64)
    torch.testing.assert_close(ArcLength(OFFSET)(s), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("midpoint", 2), ("ab2", 2)])
@pytest.mark.parametrize("warp", [Shift(0.3), Shift(3.0), ArcLength(OFFSET), lambda s: s**1.5])
def test_solvers_keep_their_order_on_warped_grids(solver, order, warp):
    """dz/dtau = z cos(k tau): z(1) = exp(sin(k) / k), for several k, as one error may cancel."""
    k = torch.arange(1, 7, dtype=torch.float64)

    def field(z, tau):
        return z * torch.cos(k * tau[:, None])

    one, exact = torch.ones(1, 6, dtype=torch.float64), torch.exp(torch.sin(k) / k)
    errors = [float((integrate(field, one, OFFSET.kinks, solver, n, grid=warp).z - exact).norm()) for n in (100, 400)]
    # A slope over a factor of 4; the next order and uneven pieces bend it by less than 0.15.
    assert abs(math.log(errors[0] / errors[1], 4) - order) < 0.15, errors


@pytest.mark.parametrize(
    ("warp", "message"),
    [
        (lambda s: s / 2, "must lead from 0 to 1"),
        (lambda s: 1 - s, "must lead from 0 to 1"),
        (lambda s: s + 0.5 * torch.sin(2 * torch.pi * s) * (s < 1), "do not increase"),
    ],
)
def test_what_is_no_grid(warp, message):
    with pytest.raises(UserError, match=message):
        fixed_grid(warp, 20, ())


def test_unknown_names_and_numbers():
    with pytest.raises(UserError, match="arc_length"):
        Integration(grid="arclength").warp(OFFSET)
    with pytest.raises(UserError, match="positive"):
        Shift(0.0)
    z = torch.zeros(1, 1)
    for settings in ({"solver": "rk4"}, {"steps": 0}, {"atol": 0.0}, {"rtol": -1.0}):
        with pytest.raises(UserError):
            integrate(lambda z, tau: z, z, (), **settings)
