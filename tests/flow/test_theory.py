"""The paper's theorems, on Gaussian data where every ideal quantity has a closed form (tests/gaussian.py).

Theorem 3.1: (I) the law of z(tau), (II) the ideal global flow carries noise to data, (III) the score identity.
Theorem 3.2: the flow loss is minimised by the ideal local flow. Lemma 3.3: which time weights leave local times alone.
"""

import functools
import itertools
import math

import numpy as np
import pytest
import torch

from gaussian import GaussianData
from lwd.flow import flow_loss, global_velocity, interpolate, score_to_velocity, velocity_to_score
from lwd.groups import Group, Layout
from lwd.schedules import IdentityCurve, PolynomialCurve, Schedule

ONE = GaussianData.random(Layout([Group("z", 3)]), seed=1)
TWO = GaussianData.random(Layout([Group("tex", 2, 1.0), Group("sem", 1, 2.0)]), (2, 1), seed=2)
THREE = GaussianData.random(Layout([Group("a", 2, 1.0), Group("b", 1, 0.5), Group("c", 1, 3.0)]), seed=3)
VECTOR = GaussianData.random(TWO.layout, (), seed=4)
SEQUENCE = GaussianData.random(TWO.layout, (2,), seed=5)
VIDEO = GaussianData.random(TWO.layout, (1, 2, 1), seed=6)
FLAT = GaussianData.random(
    Layout([Group("image", 1, shape=(2, 1)), Group("token", 2, 0.5, shape=()), Group("text", 1, 3.0, shape=(2,))]),
    (),
    seed=7,
)

LATE = [-3.0, 0.5, -1.0, 2.0, 1.0]
MIDDLE = [1.0, 2.0, 0.0, -2.0, -3.0]
COLLAPSED = [-12.0, -12.0, -12.0, -12.0, 3.0]


def curve(rho):
    return PolynomialCurve.from_rho(torch.tensor(rho))


def schedule(data, *rhos):
    """The given curves for the first groups, the identity for the last."""
    return Schedule(dict(zip(data.layout.names, [*map(curve, rhos), IdentityCurve()], strict=True)))


CASES = {
    "one group": (ONE, schedule(ONE)),
    "one group, not the identity": (ONE, Schedule({"z": curve(LATE)})),
    "synchronous": (TWO, Schedule.synchronous(TWO.layout.names)),
    "offset": (TWO, Schedule.offset(TWO.layout.names, "sem")),
    "offset, tex leads": (TWO, Schedule.offset(TWO.layout.names, leader="tex", delta=0.8)),
    "learned": (TWO, schedule(TWO, LATE)),
    "nearly extremal": (TWO, schedule(TWO, COLLAPSED)),
    "three groups, learned": (THREE, schedule(THREE, LATE, MIDDLE)),
    "three groups, offset": (THREE, Schedule.offset(THREE.layout.names, leader="b", delta=0.3)),
    "three groups, nearly extremal": (THREE, schedule(THREE, COLLAPSED, MIDDLE)),
    "vectors": (VECTOR, schedule(VECTOR, LATE)),
    "sequences": (SEQUENCE, schedule(SEQUENCE, LATE)),
    "videos": (VIDEO, schedule(VIDEO, LATE)),
    "three grids": (FLAT, schedule(FLAT, LATE, MIDDLE)),
}
cases = pytest.mark.parametrize(("data", "schedule"), [pytest.param(*case, id=name) for name, case in CASES.items()])


def at(tau):
    return torch.tensor([tau], dtype=torch.float64)


# Theorem 3.1


@cases
def test_interpolants_have_the_moments_of_theorem_3_1(data, schedule):
    """(I): mean A mu and covariance A Sigma A + B^2, exactly, on points that have the moments of noise and data."""
    x0, x1 = data.cubature()
    for tau in (0.0, 0.2, 0.55, 0.9, 1.0):
        times = schedule(at(tau))[0]
        z, u = interpolate(x0, x1, times.expand(len(x0), -1), data.layout)
        z, u = z.flatten(1), u.flatten(1)
        mean, cov = data.moments(times[0])
        # 1e-12: float64 sums over a few dozen points
        torch.testing.assert_close(z.mean(0), mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(torch.cov(z.T, correction=0), cov, rtol=0, atol=1e-12)
        torch.testing.assert_close(u.mean(0), data.mean, rtol=0, atol=1e-12)


def test_random_interpolants_have_the_moments_of_theorem_3_1():
    """(I) once more by Monte Carlo, each sample at its own global time as in training."""
    data, schedule = CASES["three groups, learned"]
    count = 100_000
    x0, x1 = data.sample(count, seed=5)
    tau = torch.tensor([0.3, 0.8], dtype=torch.float64).repeat(count // 2)
    z, _ = interpolate(x0, x1, schedule(tau)[0], data.layout)
    for i, value in enumerate((0.3, 0.8)):
        mean, cov = data.moments(schedule(at(value))[0][0])
        part = z[i::2].flatten(1)
        # 5 standard errors of a mean and of a covariance of 50 000 samples
        bound = 5 / math.sqrt(count // 2)
        spread = cov.diagonal().sqrt()
        assert ((part.mean(0) - mean).abs() < bound * spread).all()
        assert ((torch.cov(part.T) - cov).abs() < bound * math.sqrt(2) * spread[:, None] * spread).all()


def integrate(data, schedule, stops, steps):
    """RK4 on the ideal global flow from tau = 0: the affine map z0 -> z(tau), as (matrix, offset), at each stop.

    The interval is split at the schedule's kinks, and rates are taken inside each piece. The flow is affine in z, so
    carrying the origin and the basis vectors carries every moment exactly.
    """
    n = data.entries
    z = data.latent(torch.cat([torch.zeros(1, n, dtype=torch.float64), torch.eye(n, dtype=torch.float64)]))
    inner = 1e-13  # how far inside a piece its end points are evaluated
    maps = []
    for low, high in itertools.pairwise(sorted({0.0, *schedule.kinks, *stops})):
        h = (high - low) / steps
        times, rates = schedule(torch.linspace(low + inner, high - inner, 2 * steps + 1, dtype=torch.float64))
        slopes, offsets = data.ideal_map(times)

        def field(j, z, rates=rates, slopes=slopes, offsets=offsets):
            v = data.latent(z.flatten(1) @ slopes[j].T + offsets[j])
            return global_velocity(v, rates[j].expand(len(z), -1), data.layout)

        for i in range(steps):
            k1 = field(2 * i, z)
            k2 = field(2 * i + 1, z + h / 2 * k1)
            k3 = field(2 * i + 1, z + h / 2 * k2)
            k4 = field(2 * i + 2, z + h * k3)
            z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        if high in stops:
            flat = z.flatten(1)
            maps.append(((flat[1:] - flat[0]).T, flat[0]))
    return maps


@cases
def test_the_ideal_global_flow_carries_noise_through_p_tau_to_the_data(data, schedule):
    """(II): N(0, I) has the moments of p_tau at every stop, and those of the data at tau = 1."""
    stops = (0.35, 0.8, 1.0)
    for tau, (matrix, offset) in zip(stops, integrate(data, schedule, stops, steps=60), strict=True):
        mean, cov = data.moments(schedule(at(tau))[0][0])
        # 1e-7: ten times the fourth-order error, which halving the step divides by 16
        torch.testing.assert_close(offset, mean, rtol=0, atol=1e-7)
        torch.testing.assert_close(matrix @ matrix.T, cov, rtol=0, atol=1e-7)
    torch.testing.assert_close(mean, data.mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(cov, data.cov, rtol=0, atol=1e-12)


@cases
def test_the_ideal_global_flow_satisfies_the_continuity_equation(data, schedule):
    """(II), pointwise: d/dtau log p + div V + V . grad log p = 0 at random z and tau."""
    generator = torch.Generator().manual_seed(0)
    h = 1e-4
    for tau in (0.1, 0.37, 0.64, 0.9):
        z = data.latent(torch.randn(5, data.entries, generator=generator, dtype=torch.float64)).requires_grad_()
        times, rates = (x.expand(len(z), -1) for x in schedule(at(tau)))
        v = global_velocity(data.ideal_velocity(z, times), rates, data.layout)
        divergence = torch.zeros(len(z), dtype=torch.float64)
        for i in range(data.entries):
            (row,) = torch.autograd.grad(v.flatten(1)[:, i].sum(), z, retain_graph=True)
            divergence = divergence + row.flatten(1)[:, i]
        later, sooner = (data.log_density(z, schedule(at(tau + s * h))[0].expand(len(z), -1)) for s in (1, -1))
        transport = (v * data.score(z, times)).flatten(1).sum(1)
        residual = (later - sooner) / (2 * h) + divergence + transport
        size = divergence.abs() + transport.abs() + 1
        assert (residual.abs() < 1e-5 * size).all()  # central differences: h^2 times a third derivative


@cases
def test_velocity_and_score_turn_into_each_other(data, schedule):
    """(III): the closed-form score from the ideal velocity, and back, at times that differ between samples."""
    generator = torch.Generator().manual_seed(0)
    tau = torch.rand(500, generator=generator, dtype=torch.float64)
    times = schedule(tau)[0]
    times = times[((times > 1e-3) & (times < 1 - 1e-3)).all(1)]
    assert len(times) > 20
    z = data.latent(2 * torch.randn(len(times), data.entries, generator=generator, dtype=torch.float64))
    v, score = data.ideal_velocity(z, times), data.score(z, times)
    # 1e-9: float64 with divisions by t and 1 - t down to 1e-3
    torch.testing.assert_close(velocity_to_score(v, z, times, data.layout), score, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(score_to_velocity(score, z, times, data.layout), v, rtol=1e-9, atol=1e-9)


def test_the_score_identity_also_holds_where_a_group_is_pure_noise_or_clean():
    """t_g = 0 is allowed one way (the score is -z_g, whatever v), t_g = 1 the other (v = z_g)."""
    layout = TWO.layout
    z, v = torch.randn(2, 3, 2, 1), torch.randn(2, 3, 2, 1)
    times = torch.tensor([[0.0, 0.5], [0.0, 0.0]])
    score = velocity_to_score(v, z, times, layout)
    assert torch.equal(score[:, :2], -z[:, :2]) and torch.equal(score[1], -z[1])
    assert torch.equal(score_to_velocity(v, z, 1 - times, layout)[1], z[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grid", [(), (2,), (2, 1), (1, 2, 1), (1, 2, 1, 1)], ids=len)
def test_the_conversions_keep_the_networks_dtype(dtype, grid):
    z, times = torch.randn(2, 3, *grid, dtype=dtype), torch.tensor([[0.3, 0.5], [0.7, 0.2]])
    assert interpolate(z, z, times, TWO.layout)[0].dtype == dtype
    assert global_velocity(z, times, TWO.layout).dtype == dtype
    assert velocity_to_score(z, z, times, TWO.layout).dtype == dtype
    assert score_to_velocity(z, z, times, TWO.layout).dtype == dtype


def test_the_interpolant_moves_along_its_target_as_local_times_move():
    """dz_g/dt_g = u_g, through autograd: the schedule's gradient flows through z."""
    x0, x1 = torch.randn(2, 3, 2, 1), torch.randn(2, 3, 2, 1)
    times = torch.rand(2, 2, requires_grad=True)
    z, u = interpolate(x0, x1, times, TWO.layout)
    weights = torch.randn_like(z)
    (gradient,) = torch.autograd.grad((weights * z).sum(), times)
    expected = TWO.layout.group_means(weights * u) * torch.tensor([4.0, 2.0])  # entries of each group
    torch.testing.assert_close(gradient, expected)


# Theorem 3.2


def fitted(data, schedule, taus, omega, reduction):
    """Minimise `flow_loss` over one affine map per tau: (slopes (K, N, N), offsets (K, N)).

    The loss is quadratic, so one Newton step from zero is exact; cubature points stand for infinite data.
    """
    x0, x1 = data.cubature()
    tau = torch.tensor(taus, dtype=torch.float64).repeat_interleave(len(x0))
    times, rates = schedule(tau)
    x0, x1 = torch.cat([x0] * len(taus)), torch.cat([x1] * len(taus))
    z, u = interpolate(x0, x1, times, data.layout)
    inputs = torch.cat([z.flatten(1), torch.ones(len(z), 1, dtype=torch.float64)], 1).unflatten(0, (len(taus), -1))
    n = data.entries

    def loss(parameters):
        v = torch.einsum("kbi,koi->kbo", inputs, parameters.view(len(taus), n, n + 1))
        return flow_loss(data.latent(v.flatten(0, 1)), u, omega(times, rates), data.layout, reduction)[0]

    zero = torch.zeros(len(taus) * n * (n + 1), dtype=torch.float64)
    gradient = torch.func.grad(loss)(zero)
    hessian = torch.func.hessian(loss)(zero)
    solution = -torch.linalg.solve(hessian, gradient).view(len(taus), n, n + 1)
    return solution[..., :-1], solution[..., -1]


WEIGHTS = {
    "one": lambda times, rates: torch.ones_like(rates),
    "corrected": lambda times, rates: rates,
    "arbitrary": lambda times, rates: 0.2 + torch.exp(-3 * times) + rates.square(),
}


@pytest.mark.parametrize("reduction", ["mean_flat", "group_mean"])
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("name", ["synchronous", "learned", "three groups, learned", "vectors", "three grids"])
def test_the_flow_loss_is_minimised_by_the_ideal_local_flow(name, weight, reduction):
    """Theorem 3.2: whatever the schedule and the positive weights, at the local times that are visited."""
    data, schedule = CASES[name]
    if data is TWO:
        data = GaussianData.random(TWO.layout, seed=2)  # 1 x 1 grid: the Hessian stays small
    taus = [0.3, 0.6, 0.9]
    slopes, offsets = fitted(data, schedule, taus, WEIGHTS[weight], reduction)
    expected_slopes, expected_offsets = data.ideal_map(schedule(torch.tensor(taus, dtype=torch.float64))[0])
    # 1e-3: component losses are float32, and Cov z has condition numbers up to about 100
    torch.testing.assert_close(slopes, expected_slopes, rtol=0, atol=1e-3)
    torch.testing.assert_close(offsets, expected_offsets, rtol=0, atol=1e-3)


def test_two_schedules_that_meet_recover_one_local_flow():
    """The target of Theorem 3.2 depends on the local times alone, not on the schedule that visited them."""
    data = GaussianData.random(TWO.layout, seed=2)
    learned = schedule(TWO, LATE)
    tau = 0.7
    t_tex = learned(at(tau))[0][0, 0].item()
    delta = tau - t_tex  # SFD's leader is at tau' (1 + delta) = tau when its follower is at tau - delta
    offset = Schedule.offset(data.layout.names, "sem", delta=delta)
    tau_offset = tau / (1 + delta)
    torch.testing.assert_close(learned(at(tau))[0], offset(at(tau_offset))[0], rtol=0, atol=1e-12)
    first = fitted(data, learned, [tau], WEIGHTS["corrected"], "mean_flat")
    second = fitted(data, offset, [tau_offset], WEIGHTS["arbitrary"], "group_mean")
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-3)  # float32 losses, as above
    other = fitted(data, Schedule.synchronous(data.layout.names), [tau], WEIGHTS["one"], "mean_flat")
    assert (other[0] - first[0]).abs().max() > 0.05  # another pair of local times has another flow


# Lemma 3.3

CURVES = {"late": LATE, "middle": MIDDLE, "nearly extremal": [-4.0, -6.0, -6.0, -6.0, 3.0]}
LOSSES = {
    "smooth": lambda own, other: torch.exp(torch.sin(4 * own + 2 * other)),
    "early": lambda own, other: torch.exp(-6 * own) * (1 + other),
    "late": lambda own, other: own**3 / (0.3 + other**2),
}
# what multiplies l_tex instead of t'
WRONG = {
    "one": torch.ones_like,
    "square": lambda rate: rate.square(),
    "root": lambda rate: rate.sqrt(),
    "constant": lambda rate: torch.full_like(rate, 0.8),
    "twice": lambda rate: 2 * rate,
}


@functools.cache
def gauss(count=200):
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


def local_time_form(curve, loss):
    """E_s[l(s, t^-1(s))], s ~ U(0, 1); s = r^6 makes the inverse smooth in r where the curve starts as a power."""
    nodes, weights = gauss()
    s = nodes**6
    return (6 * nodes**5 * weights * loss(s, curve.inverse(s))).sum().item()


@pytest.mark.parametrize("rho", CURVES)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_corrected_weight_gives_the_local_time_form(rho, loss):
    """Lemma 3.3, sufficiency: E_tau[t' l(t, tau)] = E_s[l(s, t^-1(s))]."""
    c = curve(CURVES[rho])
    tau, weights = gauss()
    t, rate = c(tau)
    corrected = (weights * rate * LOSSES[loss](t, tau)).sum().item()
    # 1e-8: both quadratures converge exponentially
    assert corrected == pytest.approx(local_time_form(c, LOSSES[loss]), rel=1e-8)


@pytest.mark.parametrize("rho", CURVES)
@pytest.mark.parametrize("weight", WRONG)
def test_other_weights_do_not_for_some_loss(rho, weight):
    """Lemma 3.3, necessity: every other weight fails the identity for at least one of the losses."""
    c = curve(CURVES[rho])
    tau, weights = gauss()
    t, rate = c(tau)
    errors = [
        (weights * WRONG[weight](rate) * loss(t, tau)).sum().item() / local_time_form(c, loss) - 1
        for loss in LOSSES.values()
    ]
    assert max(map(abs, errors)) > 0.1


@pytest.mark.parametrize("reduction", ["mean_flat", "group_mean"])
@pytest.mark.parametrize("rho", CURVES)
def test_flow_loss_with_rates_as_weights_is_the_local_time_form(rho, reduction):
    """Eq. 30 through the code that trains: residuals built to have the component losses l_g(t_g, other)."""
    layout = Layout([Group("tex", 3, 1.5), Group("sem", 1, 2.0)])
    learned = Schedule({"tex": curve(CURVES[rho]), "sem": IdentityCurve()})
    count = 20_000
    tau = (torch.arange(count, dtype=torch.float64) + 0.5) / count  # midpoint rule: error of order 1e-8
    times, rates = learned(tau)
    l_tex, l_sem = LOSSES["smooth"], LOSSES["early"]
    components = torch.stack([l_tex(times[:, 0], tau), l_sem(tau, times[:, 0])], 1)
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).view(1, 1, 1, 2)
    v = layout.expand(components.sqrt(), signs) * signs
    total, by_group = flow_loss(v, torch.zeros_like(v), rates, layout, reduction)
    nodes, weights = gauss()
    tex = local_time_form(learned["tex"], l_tex)
    sem = (weights * l_sem(nodes, learned["tex"](nodes)[0])).sum().item()
    # 1e-5: float32 component losses
    assert by_group["tex"].item() == pytest.approx(tex, rel=1e-5)
    assert by_group["sem"].item() == pytest.approx(sem, rel=1e-5)
    factors = (1.5 * 3 / 4, 2.0 * 1 / 4) if reduction == "mean_flat" else (1.5, 2.0)
    assert total.item() == pytest.approx(factors[0] * tex + factors[1] * sem, rel=1e-5)
    uncorrected, _ = flow_loss(v, torch.zeros_like(v), torch.ones_like(rates), layout, reduction)
    assert uncorrected.item() != pytest.approx(total.item(), rel=1e-2)
