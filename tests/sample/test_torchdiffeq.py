"""dopri5 against torchdiffeq's, an independent implementation with one step size for the whole batch."""

from itertools import pairwise

import pytest
import torch
from torchdiffeq import odeint

from gaussian import GaussianData
from lwd.flow import global_velocity
from lwd.groups import Group, Layout
from lwd.sample.ode import integrate
from lwd.sample.plan import KINK_MARGIN
from lwd.schedules import IdentityCurve, PolynomialCurve, Schedule

LAYOUT = Layout([Group("tex", 2), Group("sem", 1)])
DATA = GaussianData.random(LAYOUT, (4, 4), seed=3)


def learned(*rho):
    return Schedule({"tex": PolynomialCurve.from_rho(torch.tensor(rho)), "sem": IdentityCurve()})


SCHEDULES = {
    "synchronous": Schedule.synchronous(LAYOUT.names),
    "offset": Schedule.offset(LAYOUT.names),
    "learned": learned(-1.0, 0.5, 1.0, -2.0, 0.3),
    "near-extremal": learned(-9.0, -9.0, -9.0, -9.0, 5.0),
}


@torch.no_grad()
def by_torchdiffeq(schedule, z, atol, rtol):
    """The end state and how often V was asked; split at kinks, and held inside each piece, whose end a step hits."""
    calls = 0
    for low, high in pairwise([0.0, *schedule.kinks, 1.0]):

        def field(tau, state, low=low, high=high):
            nonlocal calls
            calls += 1
            inside = tau.clamp(low + KINK_MARGIN, high - KINK_MARGIN).expand(len(state))
            times, rates = schedule(inside)
            return global_velocity(DATA.ideal_velocity(DATA.latent(state), times), rates, LAYOUT).flatten(1)

        ends = torch.tensor([low, high], dtype=torch.float64)
        z = odeint(field, z, ends, method="dopri5", atol=atol, rtol=rtol, options={"step_t": ends[1:]})[-1]
    return z, calls


def velocity(schedule):
    def field(state, tau):
        with torch.no_grad():
            times, rates = schedule(tau)
        return global_velocity(DATA.ideal_velocity(DATA.latent(state), times), rates, LAYOUT).flatten(1)

    return field


@pytest.mark.parametrize(("atol", "rtol"), [(1e-6, 1e-3), (1e-8, 1e-6)])
def test_the_same_ends_for_no_more_evaluations(atol, rtol):
    mean, calls = {}, {}
    for name, schedule in SCHEDULES.items():
        z = torch.randn(32, DATA.entries, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        ours = integrate(velocity(schedule), z, schedule.kinks, atol=atol, rtol=rtol)
        theirs, calls[name] = by_torchdiffeq(schedule, z, atol, rtol)
        mean[name] = float(ours.nfe.double().mean())
        # Both keep the tolerance in every step's rms; thirty times it over the steps and for the largest entry, as for
        # the exact solution in test_ode.py.
        assert (ours.z - theirs).abs().max() < 30 * (atol + rtol * float(z.abs().max())), name
    # Evaluations come in steps of 6, and a batch with one step size sits on one of them: schedule by schedule that is
    # a gain or a loss of up to a step or so, over all schedules it evens out.
    assert sum(mean.values()) <= sum(calls.values()), (mean, calls)
    assert all(mean[name] < calls[name] + 8 for name in SCHEDULES), (mean, calls)
