"""Local times of any density: the weighted loss is the loss at local times of that density, whatever curve and draw."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import lwd.flow
from lwd.groups import Layout
from lwd.schedules import OffsetCurve, Schedule
from lwd.schedules.choice import ScheduleChoice
from lwd.schedules.fixed import PowerOfTime
from lwd.schedules.polynomial import PolynomialCurve
from lwd.times import AlongSchedule, Band, Beta, Histogram, Independent, LogitNormal, MeanBeta, Mixture, Uniform
from lwd.times.settings import LocalTimes, densities_of

LAYOUT = Layout([{"name": "a", "channels": 2}, {"name": "b", "channels": 3}])
DENSITIES = {
    "uniform": Uniform(),
    "logit_normal": LogitNormal(0.4, 0.8),
    "beta": Beta(0.3, 5.0),
    "histogram": Histogram([1.0, 0.0, 3.0, 2.0]),
}
GRID = (torch.arange(40_000, dtype=torch.float64) + 0.5) / 40_000


def _learned(*rho):
    curve = PolynomialCurve(len(rho) - 1)
    return curve.with_parameters(torch.tensor(rho))


SCHEDULES = {
    "synchronous": Schedule.synchronous(LAYOUT.names),
    "offset": Schedule.offset(LAYOUT.names, "b", 0.3),
    "texture first": Schedule.offset(LAYOUT.names, "b", -0.5),
    "power": Schedule({"a": PowerOfTime(5.0), "b": PowerOfTime(1.0)}),
    "learned": Schedule({"a": _learned(-1.0, 0.5, 2.0), "b": _learned(1.0, -3.0, 0.0)}).requires_grad_(False),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_densities_integrate_to_one_and_their_quantiles_invert_their_distribution(name):
    density = DENSITIES[name]
    assert float(density(GRID).mean()) == pytest.approx(1, abs=1e-4)  # midpoint rule, 40 000 points
    t = density.quantile(GRID)
    counts = torch.histc(t, 20, 0, 1) / len(t)
    wanted = density(GRID).view(20, -1).mean(1) / 20
    assert torch.allclose(counts, wanted, atol=5e-4)
    assert bool((t.diff() >= 0).all()) and bool((density(t) > 0).all())


def test_logit_normal_and_beta_are_scipys():
    t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    logit = np.log(t.numpy() / (1 - t.numpy()))
    wanted = stats.norm(0.4, 0.8).pdf(logit) / (t.numpy() * (1 - t.numpy()))
    assert np.allclose(LogitNormal(0.4, 0.8)(t), wanted, rtol=1e-12)
    u = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    assert np.allclose(Beta(0.3, 5.0).quantile(u), stats.beta(1.5, 3.5).ppf(u.numpy()), atol=1e-3)  # bins of 1/1000
    assert LogitNormal()(torch.tensor([0.0, 1.0])).tolist() == [0.0, 0.0]


def _ideal_loss(t):
    """l(t) of the ideal denoiser of N(0, 1) data: Var(x1 - x0 | z) = 1 / (t^2 + (1 - t)^2)."""
    return 1 / (t**2 + (1 - t) ** 2)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("draw", ["uniform", "balanced"])
def test_the_weighted_loss_is_its_local_time_form(density, schedule, draw):
    """E_tau[omega_g l(t_g)] = integral of q_g l, by a stratified Monte Carlo against quadrature.

    Tolerance: 40 000 equal strata leave the jumps of densities and rates, 1e-4 of the largest weight.
    """
    densities = [DENSITIES[density], Uniform()]
    times, omega = AlongSchedule(SCHEDULES[schedule], densities, draw)(GRID)
    found = (omega * _ideal_loss(times)).mean(0)
    for g, q in enumerate(densities):
        wanted = float((q(GRID) * _ideal_loss(GRID)).mean())  # midpoint rule
        assert float(found[g]) == pytest.approx(wanted, rel=1e-3)
    assert omega.mean(0) == pytest.approx([1, 1], abs=1e-3)  # total weight, too
    if draw == "balanced":
        assert float(omega.max()) <= 2 + 1e-12  # the number of groups
        assert torch.allclose(omega.mean(1), torch.ones(len(omega), dtype=omega.dtype))


def test_the_papers_draw_is_the_schedule_itself_bit_for_bit():
    schedule, tau = SCHEDULES["learned"], torch.rand(64)
    times, omega = AlongSchedule(schedule)(tau)
    assert torch.equal(times, schedule(tau)[0]) and torch.equal(omega, schedule(tau)[1])
    again = AlongSchedule(schedule, [Uniform(), Uniform()])(tau)
    assert torch.equal(again[1], omega)


def test_synchronous_times_with_a_logit_normal_are_sfds_flow_loss():
    """q / p = 1 where all groups have the density q and one time: the same times and weights as SFD's own draw."""
    density, u = LogitNormal(), torch.rand(4096, dtype=torch.float64)
    times, omega = AlongSchedule(Schedule.synchronous(LAYOUT.names), [density, density], "balanced")(u)
    assert torch.allclose(omega, torch.ones_like(omega), atol=1e-9)
    folded = (2 * u) % 1  # one group's half of the numbers after the other's
    assert torch.allclose(times[:, 0], lwd.flow.logit_normal(folded), atol=1e-9)


def test_a_balanced_draw_lowers_the_variance_of_the_gradient_on_collapsed_and_waiting_curves():
    """The gradient of the loss in a scale of v, sample by sample: u^2 weighted by omega; variances, 20 000 draws."""
    u = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for schedule in (SCHEDULES["power"], SCHEDULES["offset"]):
        variance = {}
        for draw in ("uniform", "balanced"):
            times, omega = AlongSchedule(schedule, [LogitNormal(), LogitNormal()], draw)(u)
            variance[draw] = float((omega * _ideal_loss(times)).sum(1).var())
        assert variance["balanced"] < 0.5 * variance["uniform"]


@pytest.mark.parametrize("flat", [False, True])
def test_flow_loss_takes_times_in_place_of_a_schedule(flat):
    x1 = torch.randn(4096, 5, dtype=torch.float64) if flat else torch.randn(4096, 5, 2, dtype=torch.float64)
    gains = []
    for times in (
        AlongSchedule(SCHEDULES["offset"], [LogitNormal()] * 2, "balanced"),
        Independent([LogitNormal()] * 2),
    ):
        loss = lwd.flow.loss(
            lambda z, t: 0 * z, x1, times, LAYOUT, "group_mean", generator=torch.Generator().manual_seed(1)
        )
        gains.append(float(loss))
    # |u|^2 = 2 for each entry, two groups, total weight 1 each: 4, within five standard errors of 4096 x 2 entries
    assert gains == pytest.approx([4, 4], abs=5 * 4 / math.sqrt(4096 * 2))


def test_joint_times():
    u = torch.rand(20_000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    times, omega = Independent([Uniform(), LogitNormal(), Beta(0.3, 5)])(u[:, :3])
    assert torch.equal(omega, torch.ones_like(times))
    assert abs(float(torch.corrcoef(times.T)[0, 1])) < 5 / math.sqrt(20_000)
    times, _ = MeanBeta(3, 0.4, 6.0)(u)
    assert bool(((times >= 0) & (times <= 1)).all())
    mean = times.mean(1)  # Beta(2.4, 3.6): its quantiles, bins of 1/1000 and 20 000 draws
    at = np.linspace(0.1, 0.9, 9)
    assert np.allclose(np.quantile(mean.numpy(), at), stats.beta(2.4, 3.6).ppf(at), atol=0.012)
    assert torch.allclose(times.mean(0), torch.full((3,), 0.4, dtype=times.dtype), atol=0.01)  # no group is special
    times, _ = Band(Uniform(), 3, 0.2)(u)
    assert bool(((times >= 0) & (times <= 1)).all()) and float((times[:, 0] - times[:, 1]).abs().max()) <= 0.4
    two = torch.rand(20_000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    along = AlongSchedule(SCHEDULES["power"], None, "balanced")
    times, omega = Mixture(along, Independent([Uniform(), Uniform()]), 0.25)(two)
    on = (times[:, 0] - times[:, 1] ** 5).abs() < 1e-6
    assert float(on.double().mean()) == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / 20_000))
    assert float(omega.mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"density": "uniform", "mean": 1.0}, "mean is not a setting of the density uniform"),
        ({"density": "histogram"}, "needs weights"),
        ({"density": "histogram", "weights": [0.0, 0.0]}, "not all 0"),
        ({"density": "beta", "mean": 1.5}, r"mean in \(0, 1\)"),
        ({"density": "logit_normal", "std": 0}, "greater than 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LocalTimes(**settings)


def test_densities_by_name():
    one = densities_of({"b": LocalTimes(density="logit_normal")}, LAYOUT.names)
    assert isinstance(one[0], Uniform) and isinstance(one[1], LogitNormal)
    with pytest.raises(ValueError, match="names 'c'; the groups are a, b"):
        densities_of({"c": LocalTimes()}, LAYOUT.names)


@pytest.mark.parametrize("text", ["synchronous", "offset:0.3", "offset:-0.3", "power:2", "power:-5", "x/y.json"])
def test_schedules_have_a_short_name(text):
    assert str(ScheduleChoice.model_validate(text)) == text


@pytest.mark.parametrize("text", ["ofset:0.3", "power:0.5", "offset:", "power:nan", "schedule.txt"])
def test_other_names_are_refused(text):
    with pytest.raises(ValueError, match=r"exponent|no schedule"):
        ScheduleChoice.model_validate(text)


def test_negative_offsets_and_powers_let_the_others_lead(tmp_path):
    tau = torch.linspace(0, 1, 11, dtype=torch.float64)
    made = ScheduleChoice.model_validate("offset:-0.3").make(LAYOUT, "b", tmp_path, "")
    assert isinstance(made["a"], OffsetCurve) and made["a"].leads and not made["b"].leads
    made = ScheduleChoice.model_validate("power:-2").make(LAYOUT, "b", tmp_path, "")
    assert torch.equal(made["a"](tau)[0], tau) and torch.allclose(made["b"](tau)[0], tau**2)
