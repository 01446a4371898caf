"""Maps and what is read off them, against the closed forms of Gaussian data."""

import math

import pytest
import torch
from scipy import integrate
from two_gaussians import Gaussian

from lwd.groups import Layout
from lwd.maps import LogSNR, coupling, learned_on, line, line_loss, measure, measure_line, mutual_information, nats
from lwd.maps.dynamics import objective
from lwd.maps.files import read_maps, write_maps
from lwd.maps.measure import grid_points
from lwd.maps.table import Map
from lwd.schedules import Schedule
from lwd.schedules.choice import ScheduleChoice
from lwd.schedules.collapse import distance_from_collapse

NAMES = ["synchronous", "offset:0.3", "offset:-0.3", "offset:1", "power:2", "power:5", "power:-2", "power:-5"]


WEAK = (0.003, 0.3, 10.0)
"""A weak lambda, one in between, and a strong one."""


def named(text, layout, tmp_path="x"):
    return ScheduleChoice.model_validate(text).make(layout, "s", tmp_path, "")


def test_a_measured_map_is_the_closed_form():
    """Within five standard errors over 2 000 images at all points and groups; the speeds within 5 % (no error kept)."""
    data, grid = Gaussian(), LogSNR(5, 6.0)
    x1, x0 = data.draw(2000)
    loss, speed = measure(data.velocity, x1, x0, data.layout, "s", grid, batch=4096)
    found, wanted = Map(data.layout, "s", grid, 1, loss, speed), data.map(grid)
    error = (found.loss.double().mean(1) - wanted.loss[:, 0]).abs()
    assert bool((error < 5 * found.standard_error()).all())
    assert torch.allclose(found.speed.double().mean(1), wanted.speed[:, 0], rtol=0.2)


def test_a_map_does_not_depend_on_the_batch_nor_on_the_other_images():
    """Float32 networks add in another order in another batch: 1e-5."""
    data, grid = Gaussian(), LogSNR(4, 6.0)
    x1, x0 = (x.float() for x in data.draw(12))
    whole, _ = measure(data.velocity, x1, x0, data.layout, "s", grid, 1000)
    parts = [measure(data.velocity, x1[i : i + 5], x0[i : i + 5], data.layout, "s", grid, 7)[0] for i in (0, 5, 10)]
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_elbo_integral_of_the_ideal_denoiser_is_the_same_along_every_line(name):
    """J = I(x1; z) at the box's one corner less that at the other (I-MMSE); 1e-3 nats, the trapezoid rule's."""
    data = Gaussian()
    path = line(named(name, data.layout), 8.0, nodes=513)
    ends = torch.sigmoid(torch.tensor([[-4.0, -4.0], [4.0, 4.0]], dtype=torch.float64))
    below, above = data.information(ends).tolist()
    assert float(nats(path, data.loss(path.times)[0], data.layout.sizes)) == pytest.approx(above - below, abs=1e-3)


def test_the_loss_along_a_line_is_its_integral_in_t():
    """Synchronous: the integral of sum_g d_g l_g(t, t) over t; a leader that ends first: along two edges."""
    data = Gaussian()

    def at(s, f):
        return data.loss(torch.tensor([[s, f]], dtype=torch.float64))[0][0] * torch.tensor(data.layout.sizes)

    wanted, _ = integrate.quad(lambda t: float(at(t, t).sum()), 0, 1)
    path = line(Schedule.synchronous(data.layout.names), 12.0, nodes=2049)
    assert float(line_loss(path, data.loss(path.times)[0], data.layout.sizes)) == pytest.approx(wanted, rel=1e-3)
    first, _ = integrate.quad(lambda s: float(at(s, 0.0)[0]), 0, 1)
    second, _ = integrate.quad(lambda f: float(at(1.0, f)[1]), 0, 1)
    path = line(Schedule.offset(data.layout.names, "s", 999.0), 12.0, nodes=2049)
    assert float(line_loss(path, data.loss(path.times)[0], data.layout.sizes)) == pytest.approx(
        first + second, rel=2e-3
    )


def test_a_line_keeps_to_the_schedule_inside_the_box():
    data = Gaussian()
    path = line(named("power:2", data.layout), 8.0, nodes=65)
    lead, follow = path.times.unbind(1)
    low, high = torch.sigmoid(torch.tensor([-4.0, 4.0], dtype=torch.float64))
    inside = (lead > low + 1e-6) & (lead < high - 1e-6)
    assert torch.allclose(follow[inside], lead[inside].square().clamp(low, high), atol=1e-3)
    assert path.times[0].tolist() == pytest.approx([float(low)] * 2) and path.times[-1].tolist() == pytest.approx(
        [float(high)] * 2
    )
    steps = (2 * torch.logit(path.times)).diff(dim=0).abs().sum(1)
    assert torch.allclose(steps, steps.mean().expand_as(steps), rtol=1e-6)


def test_the_cross_derivatives_agree_and_are_not_negative():
    """dN_f/dlambda_s = dN_s/dlambda_f to 1e-6, by central differences of step 1e-3 (error 1e-7)."""
    data = Gaussian()
    one, other = coupling(data.map(LogSNR(3, 1e-3)))
    assert float(one) == pytest.approx(float(other), abs=1e-6) and float(one) > 0.01
    wide, mirror = coupling(data.map(LogSNR(41, 8.0)))
    assert bool((wide >= -1e-9).all()) and torch.allclose(wide, mirror, atol=5e-3)  # step 0.4 squared
    none, _ = coupling(Gaussian(shared=0.0).map())
    assert torch.allclose(none, torch.zeros_like(none), atol=1e-12)


def test_mutual_information_by_two_routes():
    """Trapezoid rule, 65 points to +-16: 1e-3 nats. Shuffled groups: zero within three of its standard errors."""
    data = Gaussian()
    found = mutual_information(data.map(LogSNR(65, 16.0)))
    for value, _ in found.values():
        assert value == pytest.approx(data.mutual_information(), abs=1e-3)
    alone, grid = Gaussian(shared=0.0), LogSNR(9, 8.0)
    x1, x0 = data.draw(400)
    x1[:, 2:] = x1[torch.randperm(400, generator=torch.Generator().manual_seed(0))][:, 2:]
    shuffled = Map(alone.layout, "s", grid, 1, *measure(alone.velocity, x1, x0, alone.layout, "s", grid, 4096))
    for value, error in mutual_information(shuffled).values():
        assert abs(value) <= 3 * error + 1e-6


def test_a_table_between_its_points_is_the_closed_form():
    """Bilinear in log-SNR with steps of 0.125: 1e-2 of the value."""
    data = Gaussian()
    times = torch.sigmoid(torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    table = data.map(LogSNR(129, 8.0)).table()
    for found, wanted in zip(table(times), data.loss(times), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-2, atol=2e-3)
    there = grid_points(data.layout, "s", LogSNR(65, 8.0))
    assert torch.allclose(table(there)[0], data.loss(there)[0], rtol=1e-9)


@pytest.mark.parametrize("name", ["synchronous", "power:2", "offset:0.3"])
def test_the_objective_on_a_map_is_that_of_the_schedule(name):
    """With the denoiser at the flow loss's own minimiser: L_flow and R_kin by direct integration, 1 %."""
    data, schedule = Gaussian(), named(name, Gaussian().layout)
    tau = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    times, rates = schedule(tau)
    loss, speed = data.loss(times)
    weights = torch.tensor([2.0, 1.0]) * torch.tensor(data.layout.sizes) / 5
    found = objective(data.map(LogSNR(65, 12.0)).table(), schedule, 0.1, kinetic_trains="schedule")
    assert float(found["flow"]) == pytest.approx(float((weights * rates * loss).sum(1).mean()), rel=1e-2)
    assert float(found["kinetic"]) == pytest.approx(float((rates.square() * speed).sum(1).mean()), rel=1e-2)


def test_the_shrunk_denoiser_minimises_the_objective():
    """c_g = f_g / (f_g + lambda t_g'): no other share of the ideal velocity does better (Algorithm 1's denoiser)."""
    data, weight = Gaussian(), 0.3
    schedule = named("power:2", data.layout)
    tau = (torch.arange(500, dtype=torch.float64) + 0.5) / 500
    times, rates = schedule(tau)
    loss, speed = data.loss(times)
    factors = torch.tensor([2.0, 1.0], dtype=torch.float64) * torch.tensor(data.layout.sizes) / 5
    kept = torch.full_like(rates, 0.5, requires_grad=True)
    optimizer = torch.optim.Adam([kept], 0.05)
    for _ in range(400):
        optimizer.zero_grad()
        flow = (factors * rates * (loss + (1 - kept).square() * speed)).sum(1).mean()
        (flow + weight * (rates.square() * kept.square() * speed).sum(1).mean()).backward()
        optimizer.step()
    wanted = factors / (factors + weight * rates)
    assert torch.allclose(kept.detach()[50:], wanted[50:], atol=5e-3)  # where t' is not near 0


@pytest.mark.parametrize(("weights", "leaves"), [((2.0, 1.0), False), ((1.0, 2.0), True)])
def test_what_the_exact_jacobian_prefers_is_decided_by_the_weights(weights, leaves):
    """A lead of s at (s, f) pays iff w_f odds(s) > w_s odds(f): from the identity not at 1:2, and at 2:1 at once."""
    table = Gaussian(weights=weights).map(LogSNR(33, 10.0)).table()
    learned = learned_on(table, 0.0, jacobian="exact", kinetic_trains="schedule", steps=150, burn_in=75, rho_lr=0.1)
    distance = distance_from_collapse(learned)
    assert distance < 0.8 if leaves else distance > 0.95


def test_the_exact_flow_loss_is_indifferent_at_equal_weights_near_the_identity():
    """At 1:1 the first-order change from the identity vanishes, whatever the data."""
    changes = {}
    for weights in [(2.0, 1.0), (1.0, 1.0), (1.0, 2.0)]:
        data = Gaussian(weights=weights)
        table = data.map(LogSNR(65, 12.0)).table()
        flow = [
            float(objective(table, named(f"power:{a}", data.layout), 0.0, kinetic_trains="schedule")["flow"])
            for a in (1.0, 1.02)
        ]
        changes[weights] = (flow[1] - flow[0]) / 0.02
    assert changes[2.0, 1.0] > 0 > changes[1.0, 2.0]
    assert abs(changes[1.0, 1.0]) < 0.1 * min(abs(changes[2.0, 1.0]), abs(changes[1.0, 2.0]))


def collapse(table, weight, trains):
    """The distance from collapse of what Algorithm 1 learns on a map in 150 steps."""
    learned = learned_on(table, weight, kinetic_trains=trains, steps=150, burn_in=75, rho_lr=0.1)
    return distance_from_collapse(learned)


def test_a_weak_lambda_collapses_and_so_does_a_strong_one_where_the_kinetic_term_trains_the_denoiser():
    """The second collapse: with both the distance has a maximum, with the schedule alone it grows with lambda."""
    table = Gaussian(variance=0.05).map(LogSNR(17, 8.0)).table()
    both, alone = ([collapse(table, weight, trains) for weight in WEAK] for trains in ("both", "schedule"))
    assert both[0] < both[1] / 2 and both[2] < both[1] / 2 and both[1] < 0.1
    assert alone[0] < 0.03 < alone[1] < alone[2] and alone[2] > 0.5


def test_three_groups_are_measured_by_pairs():
    layout = Layout([{"name": n, "channels": 1} for n in "abc"])
    points = grid_points(layout, "b", LogSNR(3, 4.0)).view(2, 3, 3, 3)
    times = LogSNR(3, 4.0).times
    assert torch.equal(points[0, 2, 0], torch.stack([times[0], times[2], times[2]]))
    assert torch.equal(points[1, 2, 0], torch.stack([times[2], times[2], times[0]]))
    x1, x0 = torch.randn(2, 6, 3, dtype=torch.float64)
    loss = measure_line(lambda z, t, i: 0 * z, x1, x0, points.flatten(0, 2), layout, 5)
    assert torch.allclose(loss, ((x1 - x0) ** 2)[:, None].expand_as(loss).float())
    assert math.isclose(float(loss.mean()), float(((x1 - x0) ** 2).mean()), rel_tol=1e-6)


def test_a_latent_of_many_positions_has_the_nats_of_all(tmp_path):
    """Six independent copies on a 2 x 3 grid: six times the information, J, L and coupling (the same losses)."""
    data, grid = Gaussian(), LogSNR(5, 6.0)

    def tiled(z, times, *_):
        rows = z.permute(0, 2, 3, 1).reshape(-1, 5)
        return data.velocity(rows, times.repeat_interleave(6, 0)).view(len(z), 2, 3, 5).permute(0, 3, 1, 2)

    x1, x0 = (x.view(50, 2, 3, 5).permute(0, 3, 1, 2) for x in data.draw(300))
    found = Map(data.layout, "s", grid, 6, *measure(tiled, x1, x0, data.layout, "s", grid, 512))
    rows1, rows0 = (x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (x1, x0))
    alone = Map(data.layout, "s", grid, 1, *measure(data.velocity, rows1, rows0, data.layout, "s", grid, 4096))
    for route, (value, _) in mutual_information(alone).items():
        assert mutual_information(found)[route][0] == pytest.approx(6 * value, rel=1e-4)
    for one, six in zip(coupling(alone), coupling(found), strict=True):
        torch.testing.assert_close(six, 6 * one, rtol=1e-4, atol=1e-4)
    write_maps(tmp_path, {"heldout": found, "train": found}, {})
    assert read_maps(tmp_path)["heldout"].positions == 6
    path = line(Schedule.synchronous(data.layout.names), 6.0, nodes=17)
    whole = measure_line(tiled, x1, x0, path.times, data.layout, 512).double().mean(0)
    each = measure_line(data.velocity, rows1, rows0, path.times, data.layout, 4096).double().mean(0)
    for integral in (nats, line_loss):
        six = integral(path, whole, data.layout.entries(found.positions))
        assert float(six) == pytest.approx(6 * float(integral(path, each, data.layout.sizes)), rel=1e-4)
