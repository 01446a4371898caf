"""Losses against loops written from the equations, and their gradients in rho against closed forms."""

import math

import numpy as np
import pytest
import torch

from gaussian import GaussianData
from lwd.flow import (
    component_losses,
    flow_loss,
    group_factors,
    interpolate,
    kinetic_energy,
    schedule_objective,
)
from lwd.groups import Group, Layout
from lwd.schedules import IdentityCurve, PolynomialCurve, Schedule

ONE = Layout([Group("z", 3, 2.0)])
TWO = Layout([Group("tex", 3, 1.0), Group("sem", 2, 2.0)])
THREE = Layout([Group("a", 1, 0.5), Group("b", 3, 1.0), Group("c", 2, 4.0)])
PAPER = Layout([Group("tex", 32, 1.0), Group("sem", 16, 2.0)])
FLAT = Layout(
    [Group("image", 2, 1.0, shape=(2, 3)), Group("token", 5, 0.5, shape=()), Group("text", 1, 4.0, shape=(4,))]
)
LATENTS = {
    "one": (ONE, (2, 3)),
    "two": (TWO, (2, 3)),
    "three": (THREE, (2, 3)),
    "vector": (TWO, ()),
    "sequence": (TWO, (6,)),
    "video": (TWO, (2, 1, 3)),
    "three grids": (FLAT, ()),
}
latents = pytest.mark.parametrize(("layout", "grid"), LATENTS.values(), ids=LATENTS)


def batch(layout, size=4, grid=(2, 3), seed=0):
    """v, u (B, C, ...) and positive weights (B, G)."""
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(size, layout.channels, *grid, generator=generator)
    u = torch.randn(size, layout.channels, *grid, generator=generator)
    return v, u, torch.rand(size, len(layout.groups), generator=generator) * 2 + 0.1


def slices(layout):
    """(group index, its part of axis 1) in order."""
    start = 0
    for g, group in enumerate(layout.groups):
        size = group.channels * math.prod(group.shape or ())
        yield g, slice(start, start + size)
        start += size


# values


@latents
def test_component_losses_average_each_groups_own_entries(layout, grid):
    """Eq. 22-23: |v_g - u_g|^2 / d_g, d_g counting channels and positions."""
    v, u, _ = batch(layout, grid=grid)
    losses = component_losses(v, u, layout)
    assert losses.shape == (4, len(layout.groups))
    for b in range(4):
        for g, channels in slices(layout):
            a, c = v[b, channels].numpy().astype(np.float64), u[b, channels].numpy().astype(np.float64)
            assert losses[b, g].item() == pytest.approx(((a - c) ** 2).sum() / a.size, rel=1e-6)  # float32


@latents
def test_group_mean_is_eq_24(layout, grid):
    v, u, omega = batch(layout, grid=grid)
    total, by_group = flow_loss(v, u, omega, layout, "group_mean")
    expected = 0.0
    for g, channels in slices(layout):
        per_sample = [
            omega[b, g].item() * (v[b, channels] - u[b, channels]).double().square().mean().item() for b in range(4)
        ]
        assert by_group[layout.names[g]].item() == pytest.approx(sum(per_sample) / 4, rel=1e-6)  # float32
        expected += layout.weights[g] * sum(per_sample) / 4
    assert list(by_group) == list(layout.names)
    assert total.item() == pytest.approx(expected, rel=1e-6)


@latents
def test_mean_flat_is_one_mean_over_all_weighted_squared_errors(layout, grid):
    """Appendix B: every entry's squared error times its group's w_g and omega_g, then one mean over everything."""
    v, u, omega = batch(layout, grid=grid)
    total, by_group = flow_loss(v, u, omega, layout, "mean_flat")
    weighted = (v - u).double().square()
    for g, channels in slices(layout):
        weighted[:, channels] *= layout.weights[g] * omega[:, g].double().view(-1, *[1] * (v.ndim - 1))
    assert total.item() == pytest.approx(weighted.mean().item(), rel=1e-6)  # float32
    assert by_group == flow_loss(v, u, omega, layout, "group_mean")[1]


def test_mean_flat_is_the_default():
    v, u, omega = batch(TWO)
    assert flow_loss(v, u, omega, TWO)[0] == flow_loss(v, u, omega, TWO, "mean_flat")[0]
    assert schedule_objective(v, u, omega, TWO).flow == flow_loss(v, u, omega, TWO, "mean_flat")[0]


def test_the_papers_weights_balance_the_groups_under_mean_flat():
    """32 channels at weight 1 and 16 at weight 2 count the same, 2/3 each; 0.04 there is 0.06 at weights 1, 1."""
    assert group_factors(PAPER, "mean_flat") == pytest.approx([2 / 3, 2 / 3])
    assert group_factors(PAPER, "group_mean") == [1, 2]
    v, u, rates = batch(PAPER)
    equal = Layout([Group("tex", 32), Group("sem", 16)])
    flat = schedule_objective(v, u, rates, PAPER, kinetic_weight=0.04, reduction="mean_flat").total
    grouped = schedule_objective(v, u, rates, equal, kinetic_weight=0.06, reduction="group_mean").total
    assert flat.item() == pytest.approx(2 / 3 * grouped.item(), rel=1e-6)  # float32


@latents
def test_kinetic_energy_is_eq_37(layout, grid):
    """E[sum_g t_g'^2 |v_g|^2], group means, no group weights."""
    v, _, rates = batch(layout, grid=grid)
    expected = 0.0
    for b in range(4):
        for g, channels in slices(layout):
            expected += rates[b, g].item() ** 2 * v[b, channels].double().square().mean().item() / 4
    assert kinetic_energy(v, rates, layout).item() == pytest.approx(expected, rel=1e-6)  # float32


@latents
@pytest.mark.parametrize("reduction", ["mean_flat", "group_mean"])
@pytest.mark.parametrize("jacobian", ["stop", "exact"])
def test_the_schedule_objective_is_eq_38(layout, grid, reduction, jacobian):
    v, u, rates = batch(layout, grid=grid)
    terms = schedule_objective(v, u, rates, layout, 0.3, jacobian, reduction)
    flow, by_group = flow_loss(v, u, rates, layout, reduction)
    assert terms.flow == flow
    assert terms.kinetic == kinetic_energy(v, rates, layout)
    assert terms.by_group == by_group
    assert terms.total.item() == pytest.approx(flow.item() + 0.3 * terms.kinetic.item(), rel=1e-6)  # float32


def test_lambda_defaults_to_the_papers():
    v, u, rates = batch(TWO)
    terms = schedule_objective(v, u, rates, TWO)
    assert terms.total.item() == pytest.approx(terms.flow.item() + 0.04 * terms.kinetic.item(), rel=1e-6)


def test_bfloat16_velocities_give_float32_losses():
    """Differences, squares and sums must be float32: a bf16 mean of thousands of squares is off by 1e-3."""
    v, u, rates = batch(TWO, grid=(32, 32))
    v, u = v.bfloat16(), u.bfloat16()
    terms = schedule_objective(v, u, rates, TWO)
    exact = schedule_objective(v.float(), u.float(), rates, TWO)
    for name in ("total", "flow", "kinetic"):
        value = getattr(terms, name)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(getattr(exact, name).item(), rel=1e-6)
    losses = component_losses(v, u, TWO)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, component_losses(v.float(), u.float(), TWO), rtol=1e-6, atol=0)


# gradients in theta


@latents
@pytest.mark.parametrize("jacobian", ["stop", "exact"])
def test_the_denoiser_receives_both_terms_gradients(jacobian, layout, grid):
    v, u, rates = batch(layout, grid=grid)
    v.requires_grad_()
    (gradient,) = torch.autograd.grad(schedule_objective(v, u, rates, layout, 0.3, jacobian).total, v)
    expected = torch.zeros_like(v)
    for g, channels in slices(layout):
        rate = rates[:, g].view(-1, *[1] * (v.ndim - 1))
        flow = 2 * layout.weights[g] * rate * (v - u)[:, channels] / v.numel()
        kinetic = 2 * rate.square() * v[:, channels] / v[:, channels].numel()
        expected[:, channels] = flow + 0.3 * kinetic
    torch.testing.assert_close(gradient, expected.detach(), rtol=1e-5, atol=1e-7)  # float32


# gradients in rho
#
# A fixed denoiser v(z, times), linear in z with a map that depends on the times, on Gaussian data: l_g(t_1, ..., t_G)
# and E|v_g|^2 are known in closed form, and cubature points make the expectation over (x0, x1) exact.

NODES = 48
TAU = (torch.arange(NODES, dtype=torch.float64) + 0.5) / NODES
RHOS = {
    "one": [[0.4, -1.0, 0.7, -0.2, 1.1]],
    "two": [[0.4, -1.0, 0.7, -0.2, 1.1]],
    "three": [[0.4, -1.0, 0.7, -0.2, 1.1], [-2.0, 1.0, 0.5, 0.3, -1.0]],
}
RHOS |= {"video": RHOS["two"], "three grids": RHOS["three"]}
TEX_SEM = [Group("tex", 2, 1.0), Group("sem", 1, 2.0)]
SHAPED = [Group("image", 1, shape=(2, 1)), Group("token", 2, 0.5, shape=()), Group("text", 1, 3.0, shape=(2,))]
DATA = {
    name: GaussianData.random(Layout(groups), grid, seed=4)
    for name, (groups, grid) in {
        "one": ([Group("z", 2, 1.5)], (1, 1)),
        "two": (TEX_SEM, (1, 1)),
        "three": ([Group("a", 1, 1.0), Group("b", 2, 0.5), Group("c", 1, 3.0)], (1, 1)),
        "video": (TEX_SEM, (1, 2, 1)),
        "three grids": (SHAPED, ()),
    }.items()
}


class Linear:
    """v(z, times) = (W + sum_g t_g W_g) z + b + sum_g t_g b_g, with random fixed W and b."""

    def __init__(self, data):
        generator = torch.Generator().manual_seed(9)
        n, g = data.entries, len(data.layout.groups)
        self.data = data
        self.slopes = torch.randn(g + 1, n, n, generator=generator, dtype=torch.float64)
        self.offsets = torch.randn(g + 1, n, generator=generator, dtype=torch.float64)

    def maps(self, times):
        ones = torch.cat([torch.ones_like(times[..., :1]), times], -1)
        return torch.einsum("...g,gij->...ij", ones, self.slopes), ones @ self.offsets

    def __call__(self, z, times):
        slope, offset = self.maps(times)
        return self.data.latent((slope @ z.flatten(1)[..., None])[..., 0] + offset)

    def losses(self, times):
        return self.data.linear_losses(*self.maps(times), times)

    def energies(self, times):
        return self.data.linear_energy(*self.maps(times), times)


class Ideal:
    """v*(z, times), which is E[u | z]: its losses are Bayes risks."""

    def __init__(self, data):
        self.data = data
        self.losses, self.energies = data.bayes_risk, data.ideal_energy

    def __call__(self, z, times):
        return self.data.ideal_velocity(z, times)


def scheduled(name, rho):
    """Polynomial curves for all groups but the last (for the only one, where there is one); rho is float64."""
    names = DATA[name].layout.names
    curves = {}
    for group, row in zip(names, rho, strict=False):
        curves[group] = PolynomialCurve(len(row) - 1).double()
        with torch.no_grad():
            curves[group].rho.copy_(row)
    return Schedule({group: curves.get(group) or IdentityCurve() for group in names})


def gradient_by_code(name, denoiser, rho, kinetic_weight, jacobian, reduction, part="total"):
    """d objective / d rho (curves, M + 1) through interpolate, the denoiser and schedule_objective, and its value."""
    data, schedule = DATA[name], scheduled(name, rho)
    x0, x1 = data.cubature()
    times, rates = schedule(TAU.repeat_interleave(len(x0)))
    x0, x1 = torch.cat([x0] * NODES), torch.cat([x1] * NODES)
    z, u = interpolate(x0, x1, times, data.layout)
    terms = schedule_objective(denoiser(z, times), u, rates, data.layout, kinetic_weight, jacobian, reduction)
    value = getattr(terms, part)
    return torch.stack(torch.autograd.grad(value, list(schedule.parameters()))), value.item()


def closed_form(name, denoiser, rho, kinetic_weight, reduction, frozen_rho=None):
    """The objective on the same global times; with ``frozen_rho`` the flow loss's t' stays at that rho."""
    layout = DATA[name].layout
    times, rates = scheduled(name, rho)(TAU)
    omega = rates if frozen_rho is None else scheduled(name, frozen_rho)(TAU)[1]
    owners = DATA[name].owners
    share = [(owners == g).double().mean() if reduction == "mean_flat" else 1.0 for g, _ in enumerate(layout.names)]
    factors = torch.tensor(layout.weights, dtype=torch.float64) * torch.tensor(share, dtype=torch.float64)
    flow = (factors * omega * denoiser.losses(times)).sum(1).mean()
    return (flow + kinetic_weight * (rates.square() * denoiser.energies(times)).sum(1).mean()).item()


def difference(function, rho, h=1e-4):
    """Central differences: truncation about h^2, rounding about 1e-16 / h."""
    gradient = torch.zeros_like(rho)
    for i in range(rho.numel()):
        step = torch.zeros_like(rho).flatten()
        step[i] = h
        step = step.view_as(rho)
        gradient.view(-1)[i] = (function(rho + step) - function(rho - step)) / (2 * h)
    return gradient


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("kind", [Linear, Ideal])
@pytest.mark.parametrize(("reduction", "kinetic_weight"), [("mean_flat", 0.0), ("group_mean", 0.3)])
def test_rho_gradients_are_those_of_the_closed_form(name, kind, reduction, kinetic_weight):
    """ "exact" differentiates everything, "stop" all but t' in the flow loss; the kinetic t' is never held."""
    rho, denoiser = torch.tensor(RHOS[name], dtype=torch.float64), kind(DATA[name])

    exact, value = gradient_by_code(name, denoiser, rho, kinetic_weight, "exact", reduction)
    stop, same = gradient_by_code(name, denoiser, rho, kinetic_weight, "stop", reduction)
    assert value == same
    # float32 component losses: 1e-5 of the value
    assert value == pytest.approx(closed_form(name, denoiser, rho, kinetic_weight, reduction), rel=1e-5)

    expected_exact = difference(lambda r: closed_form(name, denoiser, r, kinetic_weight, reduction), rho)
    expected_stop = difference(lambda r: closed_form(name, denoiser, r, kinetic_weight, reduction, frozen_rho=rho), rho)
    size = expected_exact.abs().max().item()
    torch.testing.assert_close(exact, expected_exact, rtol=1e-3, atol=1e-4 * size)
    torch.testing.assert_close(stop, expected_stop, rtol=1e-3, atol=1e-4 * size)
    assert (expected_exact - expected_stop).abs().max() > 0.02 * size  # the two are told apart


@pytest.mark.parametrize("kind", [Linear, Ideal])
def test_exact_is_the_gradient_of_the_local_time_form(kind):
    """Eq. 36: w_tex E_s[l_tex(s, t^-1(s))] + w_sem E_s[l_sem(t(s), s)], differentiated in rho with no t' in sight."""
    rho, denoiser = torch.tensor(RHOS["two"], dtype=torch.float64), kind(DATA["two"])
    nodes, weights = np.polynomial.legendre.leggauss(64)
    nodes, weights = torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)
    s = nodes**3  # l_tex(s, t^-1(s)) is smooth in r = s^(1/3), not in s

    def local_time_form(rho):
        curve = scheduled("two", rho)["tex"]
        with torch.no_grad():
            tex = denoiser.losses(torch.stack([s, curve.inverse(s)], 1))[:, 0]
            sem = denoiser.losses(torch.stack([curve(nodes)[0], nodes], 1))[:, 1]
        return (1.0 * (weights * 3 * nodes**2 * tex).sum() + 2.0 * (weights * sem).sum()).item()

    expected = difference(local_time_form, rho)
    exact, value = gradient_by_code("two", denoiser, rho, 0.0, "exact", "group_mean")
    stop, _ = gradient_by_code("two", denoiser, rho, 0.0, "stop", "group_mean")
    # the code's midpoint rule in tau has an error of order 1 / NODES^2 = 4e-4 against the continuous integrals
    size = expected.abs().max().item()
    assert value == pytest.approx(local_time_form(rho), rel=1e-3)
    torch.testing.assert_close(exact, expected, rtol=0, atol=3e-3 * size)
    assert (stop - expected).abs().max() > 0.05 * size


def test_the_kinetic_gradient_is_not_stopped():
    """Eq. 37's t' carries a gradient under either setting, the flow loss's under "exact" alone."""
    rates = torch.tensor([[0.5, 1.0], [2.0, 1.0]], requires_grad=True)
    v, u, _ = batch(TWO, size=2)
    for jacobian in ("stop", "exact"):
        terms = schedule_objective(v, u, rates, TWO, 0.3, jacobian)
        (gradient,) = torch.autograd.grad(terms.kinetic, rates, retain_graph=True)
        torch.testing.assert_close(gradient, (2 * rates * TWO.group_means(v.square()) / 2).detach())
    stopped = schedule_objective(v, u, rates, TWO, 0.0, "stop")
    (gradient,) = torch.autograd.grad(stopped.total, rates)
    assert (gradient == 0).all()
    assert not stopped.flow.requires_grad
    exact = schedule_objective(v, u, rates, TWO, 0.0, "exact", "group_mean")
    (gradient,) = torch.autograd.grad(exact.total, rates)
    torch.testing.assert_close(gradient, component_losses(v, u, TWO) * torch.tensor([1.0, 2.0]) / 2)
