"""The integrator on Gaussian data, where the ideal velocity is known and the exact end state is affine in the noise."""

import math
import signal
from itertools import pairwise

import numpy as np
import pytest
import torch
from gaussian_flows import DATA, LAYOUT, SCHEDULES
from scipy.integrate import RK45, solve_ivp

from children import HANG_S
from lwd.errors import UserError
from lwd.flow import global_velocity
from lwd.ode.integrate import integrate
from lwd.ode.methods import method
from lwd.schedules import Schedule

over_schedules = pytest.mark.parametrize("name", SCHEDULES)
SOLVERS = ("euler", "heun", "midpoint", "ab2", "dopri5")


def velocity(schedule, calls=None):
    """The ideal global velocity (Eq. 13 with v* of Eq. 7); one entry per call goes to ``calls``."""

    def field(z, tau):
        if calls is not None:
            calls.append(len(z))
        with torch.no_grad():
            times, rates = schedule(tau)
        return global_velocity(DATA.ideal_velocity(DATA.latent(z), times), rates, LAYOUT).flatten(1)

    return field


def noise(count=6):
    return torch.randn(count, DATA.entries, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_the_coefficients_are_scipys():
    """Its fractions, to the last bit; one column of the dense output is rounded for theta = 1 to be the step."""
    dopri5 = method("dopri5")
    for ours, theirs in ((dopri5.nodes[:6], RK45.C), (dopri5.stages[:6, :5], RK45.A), (dopri5.stages[6, :6], RK45.B)):
        assert torch.equal(ours, torch.from_numpy(theirs).double())
    assert torch.equal(dopri5.error, torch.from_numpy(RK45.E))
    torch.testing.assert_close(dopri5.dense, torch.from_numpy(RK45.P), rtol=0, atol=1e-14)


@pytest.fixture(scope="module")
def exact():
    """Schedule name -> (M, m): the end state is M z0 + m, by SciPy's DOP853 to 1e-12, piece by piece.

    A kink's own rate is never asked for: SciPy's pieces stay 1e-13 inside, which moves the end by as little.
    """
    n, maps = DATA.entries, {}
    for name, schedule in SCHEDULES.items():
        state = np.eye(n + 1)
        edges = [0.0, *schedule.kinks, 1.0]
        for low, high in pairwise(edges):

            def slope(tau, flat, schedule=schedule, low=low, high=high):
                with torch.no_grad():
                    inside = min(max(tau, low + 1e-13), high - 1e-13) if schedule.kinks else tau
                    times, rates = schedule(torch.tensor([inside], dtype=torch.float64))
                k, offset = DATA.ideal_map(times)
                affine = torch.cat([k[0], offset[0, :, None]], dim=1) * DATA.per_entry(rates)[0, :, None]
                return np.concatenate([affine.numpy() @ flat.reshape(n + 1, n + 1), np.zeros((1, n + 1))]).ravel()

            state = solve_ivp(slope, (low, high), state.ravel(), "DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
            state = state.reshape(n + 1, n + 1)
        maps[name] = torch.from_numpy(state[:n, :n].copy()), torch.from_numpy(state[:n, n].copy())
    return maps


def end(exact, name, z):
    matrix, offset = exact[name]
    return z @ matrix.T + offset


@over_schedules
def test_the_yardstick_itself_carries_noise_to_data(exact, name):
    """Whatever the schedule, N(0, I) must become N(mean, cov) (Theorem 3.1): M M^T = cov and m = mean."""
    matrix, offset = exact[name]
    # DOP853 ran at 1e-12 with numbers of order 1.
    torch.testing.assert_close(matrix @ matrix.T, DATA.cov, rtol=0, atol=1e-10)
    torch.testing.assert_close(offset, DATA.mean, rtol=0, atol=1e-10)


def test_schedules_differ_in_where_they_take_a_given_noise(exact):
    ends = torch.stack([end(exact, name, noise()).flatten() for name in SCHEDULES])
    assert torch.pdist(ends).min() > 0.05


@over_schedules
@pytest.mark.parametrize(
    ("solver", "order", "steps"), [("euler", 1, 128), ("heun", 2, 96), ("midpoint", 2, 64), ("ab2", 2, 128)]
)
def test_order_of_convergence(exact, name, solver, order, steps):
    z, schedule = noise(), SCHEDULES[name]
    errors = []
    for count in (steps, 4 * steps):
        errors.append(
            float((integrate(velocity(schedule), z, schedule.kinks, solver, count).z - end(exact, name, z)).norm())
        )
    if (solver, name) == ("midpoint", "synchronous"):
        order = 3  # over this flow, the h^2 term of the midpoint rule integrates to nothing
    # error = C h^p (1 + O(h)): the next order, and under offset the rounding of pieces to whole steps, bend a slope
    # taken over a factor of 4 by less than 0.1. Losing an order to a kink would cost heun a whole 1.
    assert abs(math.log(errors[0] / errors[1], 4) - order) < 0.1, errors
    assert 1e-9 < errors[1] < 0.1


@over_schedules
@pytest.mark.parametrize(("atol", "rtol", "factor"), [(1e-6, 1e-3, 30), (1e-6, 1e-6, 30), (1e-9, 1e-9, 30)])
def test_dopri5_keeps_its_tolerance(exact, name, atol, rtol, factor):
    z, schedule = noise(), SCHEDULES[name]
    solution = integrate(velocity(schedule), z, schedule.kinks, atol=atol, rtol=rtol)
    # Each step's error is below the tolerance; some ten to fifty steps add up, scaled by the flow's derivative of
    # order 1 (near-extremal ends stretch most). 30 is that with room.
    bound = factor * (atol + rtol * float(DATA.mean.abs().max() + 1))
    assert (solution.z - end(exact, name, z)).abs().max() < bound
    if rtol == 1e-3:
        assert solution.nfe.max() < 100, "the papers' tolerances should not need the papers' 250 evaluations here"


@over_schedules
def test_dopri5_s_error_follows_the_tolerance(exact, name):
    z, schedule = noise(), SCHEDULES[name]
    errors = [
        float((integrate(velocity(schedule), z, schedule.kinks, atol=tol, rtol=tol).z - end(exact, name, z)).norm())
        for tol in (1e-4, 1e-7, 1e-10)
    ]
    # Proportional in theory, a factor of 1000 each; a third of that in log is demanded.
    assert errors[0] > 10 * errors[1] > 100 * errors[2] and errors[2] < 1e-7


# Kinks


def constant_field(schedule):
    """v_g = 1: every group must move by the integral of its rate, which is 1."""
    return lambda z, tau: schedule(tau)[1].to(z.dtype)


DELTAS = [0.3, *(i / 40 for i in range(1, 60, 4))]


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_constant_field_moves_every_group_by_exactly_one(solver):
    wrong = {}
    for delta in DELTAS:
        schedule = Schedule.offset(("tex", "sem", "dep"), "sem", delta)
        z = integrate(constant_field(schedule), torch.zeros(1, 3, dtype=torch.float64), schedule.kinks, solver, 50).z
        # Steps add up to the rounding of some 50 to 100 sums of numbers up to 1: 100 * 2^-53 = 1.1e-14.
        if (z - 1).abs().max() > 1e-13:
            wrong[delta] = z[0].tolist()
    assert not wrong


@pytest.mark.parametrize(("solver", "steps"), [("euler", 20), ("heun", 20), ("dopri5", 50)])
def test_which_it_does_not_where_kinks_are_ignored(solver, steps):
    """The control of the test above: without splitting, texture misses its mark by per cents."""
    schedule = Schedule.offset(("tex", "sem"), "sem")
    z = integrate(constant_field(schedule), torch.zeros(1, 2, dtype=torch.float64), (), solver, steps).z
    assert (z - 1).abs().max() > 1e-3


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_field_is_never_asked_outside_the_interval(solver):
    taus = []

    def field(z, tau):
        taus.append(tau)
        return torch.cos(9 * tau)[:, None] * torch.ones_like(z)

    for kinks in ((), (0.25, 0.5)):
        integrate(field, torch.zeros(2, 1, dtype=torch.float64), kinks, solver, 8)
    assert torch.cat(taus).min() >= 0 and torch.cat(taus).max() <= 1 and all(t.dtype == torch.float64 for t in taus)


@pytest.mark.parametrize("name", ["synchronous", "offset"])
@pytest.mark.parametrize(("solver", "bound"), [("euler", 0.1), ("heun", 1e-3), ("dopri5", 1e-6)])
def test_two_legs_make_the_whole_way(exact, name, solver, bound):
    z, schedule = noise(), SCHEDULES[name]
    options = {"solver": solver, "steps": 200, "atol": 1e-8, "rtol": 1e-8}
    half = integrate(velocity(schedule), z, schedule.kinks, **options, end=0.5)
    whole = integrate(velocity(schedule), half.z, schedule.kinks, **options, start=0.5)
    # dopri5: 30 (1 + max |z|) 1e-8 as above. With 200 steps, euler errs by some h C = 0.03 and heun by h^2 C = 2e-4.
    assert (whole.z - end(exact, name, z)).abs().max() < bound
    assert (half.z - whole.z).abs().max() > 0.2


# Evaluations and independence of the batch


@over_schedules
@pytest.mark.parametrize("solver", SOLVERS)
def test_nfe_counts_the_calls_for_one_sample(name, solver):
    schedule, calls = SCHEDULES[name], []
    solution = integrate(velocity(schedule, calls), noise(1), schedule.kinks, solver, 50, 1e-7, 1e-4)
    assert solution.nfe.tolist() == [len(calls)] and solution.nfe.dtype == torch.int64
    if solver != "dopri5":
        assert len(calls) == 50 * (2 if solver in ("heun", "midpoint") else 1)


def stiff(z, tau):
    """dz/dtau, nonlinear, and of very different difficulty from sample to sample: rate = |first entry|."""
    rate = z[:, :1].abs()
    return torch.cat([torch.zeros_like(rate), rate * torch.sin(rate * z[:, 1:] + 20 * rate * tau[:, None])], dim=1)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_sample_does_not_depend_on_its_batch(solver):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    z[:, 0] = torch.tensor([0.01, 0.1, 0.5, 1.0, 2.0, 4.0, 8.0])
    together = integrate(stiff, z, (0.3,), solver, 20)
    order = torch.tensor([3, 6, 0, 5, 1, 4, 2])
    shuffled = integrate(stiff, z[order], (0.3,), solver, 20)
    for i in range(7):
        alone = integrate(stiff, z[i : i + 1], (0.3,), solver, 20)
        # The same operations on the same float64 numbers; sums may be taken in another order, and the end point read
        # off torchode's interpolant instead of the state: a few roundings of 1e-16, grown by e^8 at most.
        torch.testing.assert_close(together.z[i], alone.z[0], rtol=0, atol=1e-11)
        torch.testing.assert_close(shuffled.z[order == i], alone.z, rtol=0, atol=1e-11)
        assert together.nfe[i] == alone.nfe[0] and shuffled.nfe[order == i] == alone.nfe
    if solver == "dopri5":
        assert together.nfe[0] < together.nfe[6] / 3, "easy samples must not pay for hard ones"


def test_absolute_and_relative_tolerance_are_not_confused():
    """A state of 1e-6: an absolute tolerance of 0.01 is lax, a relative one is not."""

    def field(z, tau):
        return 1e-4 * torch.cos(60 * tau)[:, None] + 0 * z

    z = torch.full((1, 1), 1e-6, dtype=torch.float64)
    lax, strict = (integrate(field, z, (), atol=a, rtol=r).nfe[0] for a, r in ((1e-2, 1e-9), (1e-9, 1e-2)))
    assert strict > 5 * lax


def test_tolerances_hold_for_one_sample_s_root_mean_square():
    """Entries that do not move do not hide the error of those that do (a maximum norm would not care for either)."""

    def field(z, tau):
        return torch.where(torch.arange(z.shape[1]) < 1, torch.cos(30 * tau)[:, None], 0.0).to(z.dtype)

    few, many = (integrate(field, torch.zeros(1, d, dtype=torch.float64), ()).nfe[0] for d in (1, 10_000))
    assert few > many, "an RMS norm over 10 000 entries sees a hundredth of the error"


# Errors


@pytest.fixture
def deadline():
    """Turn a hang into a failure."""

    def give_up(*_):
        raise TimeoutError("the solver did not come back")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(HANG_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def late(z, tau):
    return torch.where(tau[:, None] > 0.5, math.nan, z)


def one_sample(z, tau):
    return torch.where(torch.arange(len(z))[:, None] == 1, math.nan, z)


RUNAWAYS = {
    "NaN": lambda z, tau: z * math.nan,
    "infinite": lambda z, tau: torch.full_like(z, math.inf),
    "NaN after half": late,
    "NaN for one sample": one_sample,
    "finite-time blow-up": lambda z, tau: 50 * z * z,
    "astronomic": lambda z, tau: 1e20 * z,
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("field", RUNAWAYS.values(), ids=list(RUNAWAYS))
@pytest.mark.usefixtures("deadline")
def test_what_stops_being_finite_is_an_error(field, solver):
    with pytest.raises(UserError) as caught:
        integrate(field, noise(3).float(), (), solver)
    assert "not finite" in str(caught.value) and "\n" not in str(caught.value)
