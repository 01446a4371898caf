"""The pool: refill, compaction, counted evaluations, and what each slot does by itself."""

import math
from functools import cache

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from lwd.ode.grids import uniform
from lwd.ode.plan import Integration, plan_between
from lwd.ode.pool import SampleError, _shrunk, flow_through
from lwd.ode.slots import Slots
from lwd.schedules import Schedule

N, D = 24, 5
SOLVERS = ("dopri5", "heun", "midpoint", "euler", "ab2")
RATES = torch.linspace(0.05, 8.0, N, dtype=torch.float64)[torch.randperm(N, generator=torch.Generator().manual_seed(2))]
START = torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CPU = torch.device("cpu")


class Field:
    """Elementwise, nonlinear, of very different difficulty from sample to sample; notes its calls."""

    def __init__(self):
        self.rows = []

    def __call__(self, z, tau, index):
        self.rows.append(len(z))
        rate = RATES[index][:, None]
        return rate * torch.sin(z + 20 * rate * tau[:, None])


def run(batch, solver="dopri5", field=None, count=N, start=START, refill=True, kinks=(0.3,)):
    field = field or Field()
    plan = plan_between(Integration(solver, steps=12), kinks, uniform, CPU)
    z, nfe, order = torch.full_like(start[:count], math.nan), torch.zeros(count, dtype=torch.int64), []
    for done in flow_through(field, lambda i: start[i], count, batch, plan, refill=refill):
        z[done.index], nfe[done.index] = done.z, done.nfe
        order += done.index.tolist()
    assert sorted(order) == list(range(count)), "every sample leaves once"
    return z, nfe, field


@cache
def all_at_once(solver):
    return run(N, solver)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_neither_batch_nor_refill_nor_compaction_changes_a_number(solver, batch):
    """Bit for bit where the velocity is elementwise: the machine itself never adds across samples or in another order.

    Up to the root mean square over a row, that is, whose vectorised sum may follow the row's address: 1e-15 of the
    step size, which the flow (of rate up to 8) grows to 1e-11 at most.
    """
    count = N if batch > 1 else 5  # one at a time is slow
    z, nfe = (whole[:count] for whole in all_at_once(solver)[:2])
    other, other_nfe, _ = run(batch, solver, count=count)
    torch.testing.assert_close(other, z, rtol=0, atol=1e-10 if solver == "dopri5" else 0)
    assert torch.equal(nfe, other_nfe)
    lockstep, lockstep_nfe, _ = run(batch, solver, count=count, refill=False)
    torch.testing.assert_close(lockstep, z, rtol=0, atol=1e-10 if solver == "dopri5" else 0)
    assert torch.equal(nfe, lockstep_nfe)


def test_batches_are_full_until_the_tail_and_nothing_is_evaluated_in_vain():
    _, nfe, field = run(8)
    assert nfe.max() > 3 * nfe.min()
    assert sum(field.rows) == int(nfe.sum()), "on a CPU not one evaluation of a finished or empty slot"
    tail = next(i for i, rows in enumerate(field.rows) if rows < 8)
    assert field.rows[tail:] == sorted(field.rows[tail:], reverse=True) and len(field.rows) - tail <= int(nfe.max())


def test_refill_takes_fewer_calls_than_lockstep():
    _, nfe, refilled = run(8)
    _, _, lockstep = run(8, refill=False)
    assert len(refilled.rows) < 0.8 * len(lockstep.rows)
    assert len(lockstep.rows) == sum(int(part.max()) for part in nfe.split(8))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_single_precision_sample_stays_single_and_time_does_not(solver):
    seen = []

    def field(z, tau, index):
        seen.append((z.dtype, tau.dtype, index.dtype))
        return z.bfloat16()

    z, _, _ = run(3, solver, field, count=5, start=START.float())
    assert z.dtype == torch.float32 and set(seen) == {(torch.float32, torch.float64, torch.int64)}


@pytest.mark.parametrize("solver", SOLVERS)
def test_waiting_groups_stay_bitwise_where_they_are(solver):
    """SFD's follower until delta / (1 + delta), and the leader from 1 / (1 + delta) on."""
    schedule = Schedule.offset(("tex", "sem"), "sem")
    low, high = schedule.kinks
    seen = []

    def field(z, tau, index):
        rates = schedule(tau)[1].to(z.dtype)
        seen.append((tau, z))
        return rates * torch.sin(3 * z + 1)

    z, _, _ = run(3, solver, field, 3, START[:3, :2].float(), kinks=schedule.kinks)
    before = [z_t[:, 0] for tau, z_t in seen if len(z_t) == 3 and bool((tau < low).all())]
    assert len(before) > 2 and all(torch.equal(x, START[:3, 0].float()) for x in before)
    after = {float(x) for tau, z_t in seen for t, x in zip(tau, z_t[:, 1], strict=True) if t > high}
    assert after == set(z[:, 1].tolist()), "the leader's clean value, and no other, while it waits"
    assert (z - START[:3, :2].float()).abs().min() > 0.01


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_failed_sample_is_named(solver, bad):
    def field(z, tau, index):
        return torch.where((index == 17)[:, None] & (tau > 0.5)[:, None], bad, z)

    with pytest.raises(SampleError, match="sample 17: the latents are not finite") as caught:
        run(6, solver, field)
    assert caught.value.number == 17


def test_a_sample_that_gets_nowhere_is_named(monkeypatch):
    monkeypatch.setattr("lwd.ode.slots.MAX_STEPS", 100)

    def field(z, tau, index):
        wild = torch.sin(1e7 * tau)[:, None] * torch.ones_like(z)
        return torch.where((index == 3)[:, None], 1e7 * wild, z)

    with pytest.raises(SampleError, match="sample 3: dopri5 gets nowhere"):
        run(5, "dopri5", field, count=5)


def test_a_tick_asks_the_host_for_nothing():
    """On fake tensors, which have no values, any look at one raises: nothing in a tick may depend on values."""
    for solver in SOLVERS:
        plan = plan_between(Integration(solver, steps=12), (0.3,), uniform, CPU)
        with FakeTensorMode(allow_non_fake_inputs=True):
            slots = Slots(plan, torch.randn(4, 3), torch.arange(4))
            for _ in range(3):
                z, _ = slots.ask()
                slots.advance(z, torch.cos(z))
            with pytest.raises(DataDependentOutputException):  # the control
                bool((slots.status == 0).any())


def test_on_a_card_the_batch_shrinks_by_halves_and_never_to_one():
    seen = [_shrunk(64, busy, by_halves=True) for busy in (64, 33, 32, 9, 5, 2, 1, 0)]
    assert seen == [64, 64, 32, 16, 8, 2, 2, 64]
    assert [_shrunk(size, 1, by_halves=True) for size in (1, 2, 3, 4, 7)] == [1, 2, 3, 2, 3]
    assert _shrunk(64, 5, by_halves=False) == 5
