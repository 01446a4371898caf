"""`loss`, Eq. 35 in one line, against the closed form on Gaussian data, gradients included."""

import numpy as np
import pytest
import torch

from gaussian import GaussianData
from lwd.flow import component_losses, interpolate, loss
from lwd.groups import Group, Layout
from lwd.schedules import IdentityCurve, PolynomialCurve, Schedule

TEX_SEM = Layout([Group("tex", 2, 1.0), Group("sem", 1, 2.0)])
SHAPED = Layout([Group("image", 1, shape=(2, 1)), Group("token", 2, 0.5, shape=()), Group("text", 1, 3.0, shape=(2,))])
DATA = {
    "vectors": GaussianData.random(TEX_SEM, (), seed=1),
    "images": GaussianData.random(TEX_SEM, (2, 1), seed=2),
    "three grids": GaussianData.random(SHAPED, (), seed=3),
}
LATE = [-3.0, 0.5, -1.0, 2.0, 1.0]
BATCHES, SIZE = 40, 4000


def learned(layout):
    """A late polynomial for all groups but the last, in float64."""
    *followers, leader = layout.names
    curves = {name: PolynomialCurve.from_rho(torch.tensor(LATE)) for name in followers}
    return Schedule({**curves, leader: IdentityCurve()}).double()


def linear(data):
    """Slope and offset of a velocity that is far from the ideal one, to be differentiated."""
    generator = torch.Generator().manual_seed(9)
    slope = torch.randn(data.entries, data.entries, generator=generator, dtype=torch.float64)
    offset = torch.randn(data.entries, generator=generator, dtype=torch.float64)
    return slope.requires_grad_(), offset.requires_grad_()


def closed_form(data, schedule, slope, offset, reduction, corrected):
    """E_tau[sum_g c_g omega_g l_g] by Gauss-Legendre, which converges exponentially."""
    nodes, weights = (torch.from_numpy(a) / 2 for a in np.polynomial.legendre.leggauss(60))
    times, rates = schedule(nodes + 0.5)
    shares = torch.stack([(data.owners == g).double().mean() for g in range(len(data.layout.groups))])
    factors = torch.tensor(data.layout.weights, dtype=torch.float64) * (shares if reduction == "mean_flat" else 1)
    omega = rates.detach() if corrected else torch.ones_like(rates)
    return (weights[:, None] * factors * omega * data.linear_losses(slope, offset, times)).sum()


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("reduction", ["mean_flat", "group_mean"])
@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_the_loss_and_its_gradients_are_those_of_the_closed_form(data, reduction, corrected):
    """Within five standard errors of the mean of 40 batches; the other omega is further away than that."""
    schedule, parameters = learned(data.layout), linear(data)
    generator = torch.Generator().manual_seed(7)
    _, x1 = data.sample(BATCHES * SIZE, seed=6)
    slope, offset = parameters

    def velocity(z, times):
        assert times.shape == (SIZE, len(data.layout.groups))
        return data.latent(z.flatten(1) @ slope.T + offset)

    found = []
    for part in x1.split(SIZE):
        value = loss(velocity, part, schedule, data.layout, reduction, corrected, generator)
        assert value.ndim == 0
        gradients = torch.autograd.grad(value, parameters)
        found.append(torch.cat([value.detach()[None], *(g.flatten() for g in gradients)]))
    means, errors = torch.stack(found).mean(0), torch.stack(found).std(0) / BATCHES**0.5

    def exact(corrected):
        value = closed_form(data, schedule, slope, offset, reduction, corrected)
        return torch.cat([value.detach()[None], *(g.flatten() for g in torch.autograd.grad(value, parameters))])

    assert ((means - exact(corrected)).abs() < 5 * errors).all()
    assert errors[0] < 0.01 * means[0]
    assert (means - exact(not corrected))[0].abs() > 10 * errors[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_network_gets_the_interpolant_in_the_datas_dtype_and_its_times(dtype):
    """From what the network saw, the noise and the target follow, and with them the loss."""
    data, schedule = DATA["images"], learned(TEX_SEM)
    x1 = data.sample(8, seed=1)[1].to(dtype)
    seen = []

    def velocity(z, times):
        seen.append((z, times))
        return torch.zeros_like(z)

    value = loss(velocity, x1, schedule, TEX_SEM, "group_mean", generator=torch.Generator().manual_seed(3))
    ((z, times),) = seen
    assert z.dtype == dtype and times.dtype != torch.bfloat16
    generator = torch.Generator().manual_seed(3)
    tau = torch.rand(8, generator=generator, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    x0 = torch.randn(x1.shape, generator=generator, dtype=dtype)
    expected_times, rates = schedule(tau)
    assert torch.equal(times, expected_times)
    expected_z, u = interpolate(x0, x1, expected_times, TEX_SEM)
    assert torch.equal(z, expected_z)
    losses = rates * component_losses(torch.zeros_like(u), u, TEX_SEM) * torch.tensor([1.0, 2.0])
    assert value.item() == pytest.approx(losses.sum(1).mean().item(), rel=1e-6)  # float32 losses


def test_draws_come_from_the_generator_or_else_from_pytorchs_own():
    x1 = DATA["images"].sample(8, seed=1)[1]

    def value(generator=None):
        return loss(lambda z, times: z, x1, learned(TEX_SEM), TEX_SEM, generator=generator).item()

    same, again, other = (value(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert same == again != other
    with torch.random.fork_rng():
        torch.manual_seed(1)
        assert value() == same != value()


def test_a_learnable_schedule_is_held():
    schedule = learned(TEX_SEM).requires_grad_()
    gain = torch.ones((), dtype=torch.float64, requires_grad=True)
    loss(lambda z, times: gain * z, DATA["images"].sample(8)[1], schedule, TEX_SEM).backward()
    assert gain.grad != 0
    assert all(parameter.grad is None for parameter in schedule.parameters())


def test_any_callable_is_a_schedule():
    x1 = DATA["images"].sample(8)[1]

    def plain(tau):
        times = tau[:, None].expand(-1, 2)
        return times, torch.ones_like(times)

    first, second = (
        loss(lambda z, times: z, x1, schedule, TEX_SEM, generator=torch.Generator().manual_seed(1))
        for schedule in (plain, Schedule.synchronous(TEX_SEM.names))
    )
    assert first == second


def test_another_velocitys_shape_and_another_layouts_schedule_are_refused():
    x1 = DATA["images"].sample(8)[1]
    with pytest.raises(ValueError, match=r"the velocity is \(8, 1, 2, 1\), the latents are \(8, 3, 2, 1\)"):
        loss(lambda z, times: z[:, :1], x1, learned(TEX_SEM), TEX_SEM)
    with pytest.raises(ValueError, match=r"schedule has groups \['sem', 'tex'\]"):
        loss(lambda z, times: z, x1, Schedule.synchronous(["sem", "tex"]), TEX_SEM)
