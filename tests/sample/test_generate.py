"""Sampling as a whole: laws of Gaussian data, independence of the batch, seeds, counted evaluations, errors."""

import math

import pytest
import torch
from torch import nn

from gaussian import GaussianData
from lwd.errors import UserError
from lwd.groups import Group, Layout
from lwd.models import create
from lwd.ode import Integration
from lwd.sample import AutoGuidance, ClassifierFreeGuidance, Ramp, generate, make_flow, run_flow
from lwd.sample.path import trajectory
from lwd.schedules import IdentityCurve, PolynomialCurve, Schedule

LAYOUT = Layout([Group("tex", 4), Group("sem", 2)])
LEARNED = Schedule({"tex": PolynomialCurve.from_rho(torch.tensor([-1.0, 0.5, 1.0, -2.0, 0.3])), "sem": IdentityCurve()})
SCHEDULES = {
    "synchronous": Schedule.synchronous(LAYOUT.names),
    "offset": Schedule.offset(LAYOUT.names, "sem", delta=0.3),
    "learned": LEARNED,
}
over_schedules = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))


@pytest.fixture(scope="module")
def network():
    """LightningDiT-Mini with everything that starts at zero random, so that it bends paths."""
    torch.manual_seed(0)
    model = create("LightningDiT-Mini/1", LAYOUT, 4, 10)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "adaLN" in name or name.startswith("final_layer.linear"):
                p.normal_(0.0, 0.1 if p.ndim == 1 else p.shape[1] ** -0.5)
    return model.eval()


class Counting(nn.Module):
    """Counts calls of the network inside."""

    def __init__(self, model):
        super().__init__()
        self.model, self.calls = model, 0

    def forward(self, z, times, labels):
        self.calls += 1
        return self.model(z, times, labels)


class Plain(nn.Module):
    """A function of (z, times, labels) that has a device, as networks do."""

    def __init__(self, function):
        super().__init__()
        self.function, self.where = function, nn.Parameter(torch.zeros(()))

    def forward(self, z, times, labels):
        return self.function(z, times, labels)


SHAPE = (LAYOUT.channels, 4, 4)
LABELS, SEEDS = torch.tensor([3, 10, 0, 9, 5, 5, 1, 2]), torch.tensor([5, 4, 2**40, 0, 7, 8, 2**33, 1])

# float32 rounds at 6e-8; a batched matrix product may add up in another order than a single row's, which two blocks,
# twenty to fifty evaluations and the flow itself grow to some 1e-5. A step size shared by the batch shows at 1e-3.
SINGLE = {"rtol": 0, "atol": 1e-4}


@over_schedules
def test_a_sample_depends_on_its_own_label_and_seed_alone(network, schedule):
    whole = generate(network, schedule, LAYOUT, LABELS, SEEDS, SHAPE)
    assert whole.latents.shape == (8, 6, 4, 4) and whole.nfe.shape == (8,)
    for indices in ([0], [6], [7, 1], [4, 2, 0, 6, 1, 3, 7, 5]):
        part = generate(network, schedule, LAYOUT, LABELS[indices], SEEDS[indices], SHAPE)
        torch.testing.assert_close(part.latents, whole.latents[indices], **SINGLE)
    assert torch.pdist(whole.latents.flatten(1)).min() > 0.1
    noise = generate(Plain(lambda z, t, y: torch.zeros_like(z)), schedule, LAYOUT, LABELS, SEEDS, SHAPE).latents
    assert (whole.latents - noise).flatten(1).norm(dim=1).min() > 1, "the network must have moved every sample"


@pytest.mark.parametrize(("name", "batch"), [("synchronous", 3), ("offset", 3), ("learned", 3), ("learned", 1)])
def test_batch_order_and_refill_do_not_matter(network, name, batch):
    schedule = SCHEDULES[name]
    whole = generate(network, schedule, LAYOUT, LABELS, SEEDS, SHAPE)
    order = torch.tensor([4, 2, 0, 6, 1, 3, 7, 5])
    part = generate(network, schedule, LAYOUT, LABELS[order], SEEDS[order], SHAPE, batch=batch)
    torch.testing.assert_close(part.latents, whole.latents[order], **SINGLE)
    assert torch.equal(part.nfe, whole.nfe[order])


def test_a_flow_yields_each_sample_once_as_it_ends(network):
    args, seen = (network, LEARNED, LAYOUT, LABELS, SEEDS, SHAPE), []
    whole, flow = generate(*args), make_flow(*args)
    for indices, latents, nfe in run_flow(flow, Integration(), batch=3):
        torch.testing.assert_close(latents, whole.latents[indices], **SINGLE)
        assert torch.equal(nfe, whole.nfe[indices]) and len(indices) <= 3
        seen += indices.tolist()
    assert sorted(seen) == list(range(8))


def start(seeds, shape=SHAPE, layout=LAYOUT):
    """The noise of each seed: the end state where nothing moves."""
    still, seeds = Plain(lambda z, t, y: torch.zeros_like(z)), torch.tensor(seeds)
    schedule = Schedule.synchronous(layout.names)
    return generate(still, schedule, layout, torch.zeros_like(seeds), seeds, shape, solver="euler", steps=1).latents


def test_a_seed_gives_the_same_noise_whatever_the_batch():
    whole = start([0, 1, 2, 2**32, 2**40 + 1, 2**62])
    assert torch.equal(start([2**40 + 1, 0]), whole[[4, 0]]) and torch.equal(start([2]), whole[[2]])
    assert torch.pdist(whole.flatten(1)).min() > 5, "different seeds, different noise (2^32 is not 0)"
    n = start(list(range(200))).flatten()  # 19 200 numbers: mean and deviation within five standard errors
    assert abs(float(n.mean())) < 5 * len(n) ** -0.5 and abs(float(n.std()) - 1) < 5 * (2 * len(n)) ** -0.5


def test_the_same_call_gives_the_same_samples_and_leaves_torch_s_generator_alone(network):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = generate(network, LEARNED, LAYOUT, LABELS, SEEDS, SHAPE)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    two = generate(network, LEARNED, LAYOUT, LABELS, SEEDS, SHAPE)
    assert torch.equal(one.latents, two.latents) and torch.equal(one.nfe, two.nfe)
    assert not one.latents.requires_grad


@over_schedules
@pytest.mark.parametrize("solver", ["dopri5", "heun", "euler"])
def test_nfe_is_the_number_of_calls_for_one_sample(network, schedule, solver):
    model = Counting(network)
    samples = generate(model, schedule, LAYOUT, LABELS[:1], SEEDS[:1], SHAPE, solver=solver, steps=12)
    assert samples.nfe.tolist() == [model.calls]


def test_settings_reach_the_solver(network):
    def cost(**settings):
        return int(generate(network, SCHEDULES["synchronous"], LAYOUT, LABELS[:1], SEEDS[:1], SHAPE, **settings).nfe)

    assert [cost(solver=s, steps=7) for s in ("euler", "heun")] == [7, 14]
    assert cost(solver="euler") == 50 and cost() == cost(solver="dopri5", atol=1e-6, rtol=1e-3)
    assert cost(rtol=1e-6) > cost() > cost(atol=1.0)


def test_nfe_is_each_sample_s_own():
    """Label 0 stands still; label 1 oscillates and needs many more steps."""
    model = Plain(lambda z, t, y: torch.cos(60 * t[:, :1, None, None]) * y[:, None, None, None] * torch.ones_like(z))
    samples = generate(model, SCHEDULES["synchronous"], LAYOUT, torch.tensor([0, 1, 0]), torch.arange(3), SHAPE)
    assert samples.nfe[0] == samples.nfe[2] < samples.nfe[1] / 2
    alone = generate(model, SCHEDULES["synchronous"], LAYOUT, torch.tensor([0]), torch.tensor([0]), SHAPE)
    assert alone.nfe == samples.nfe[:1]


@over_schedules
@pytest.mark.parametrize("solver", ["dopri5", "heun"])
def test_ideal_velocity_gives_the_data_s_law(schedule, solver):
    """Gaussian data on a 2 x 2 grid, in float32 as networks are."""
    layout = Layout([Group("tex", 1), Group("sem", 1)])
    data = GaussianData.random(layout, (2, 2), seed=1)
    model = Plain(lambda z, t, y: data.ideal_velocity(z.double(), t.double()).float())
    count = 4000
    labels = torch.zeros(count, dtype=torch.int64)
    samples = generate(
        model, schedule, layout, labels, torch.arange(count), (layout.channels, 2, 2), solver=solver, steps=30
    )
    x = samples.latents.double().flatten(1)
    spread = data.cov.diagonal().sqrt()
    # Standard errors of 4000 samples: 1 / sqrt(4000) = 0.0158 standard deviations in a mean, at most sqrt(2) as much
    # relative to the deviations' product in a covariance; five of them, over which the solvers' 1e-3 does not matter.
    assert ((x.mean(0) - data.mean) / spread).abs().max() < 0.08
    assert ((torch.cov(x.T) - data.cov) / torch.outer(spread, spread)).abs().max() < 0.112


def test_the_network_is_asked_with_local_times_and_its_answer_weighed_with_rates():
    """v_g = t_g^2 per group: the end is noise plus the integral of t^2 dt = 1/3, whatever the curve."""
    model = Plain(lambda z, t, y: LAYOUT.expand(t.square(), z).expand_as(z))
    seeds = torch.arange(3)
    for schedule in (*SCHEDULES.values(), Schedule.offset(LAYOUT.names, "sem", delta=0.2)):
        samples = generate(model, schedule, LAYOUT, torch.zeros(3, dtype=torch.int64), seeds, SHAPE, rtol=1e-6)
        # rtol 1e-6 on numbers up to 5, over some ten steps, and float32 rounding of the same size.
        torch.testing.assert_close(samples.latents, start([0, 1, 2]) + 1 / 3, rtol=0, atol=1e-4)


def test_labels_reach_the_network_in_order():
    model = Plain(lambda z, t, y: y[:, None, None, None].float().expand_as(z))
    labels = torch.tensor([4, 0, 2])
    moved = generate(model, LEARNED, LAYOUT, labels, torch.arange(3), SHAPE).latents - start([0, 1, 2])
    # The integral of the rate is 1; rounding of float32 numbers up to 9, and rtol 1e-3 of an almost polynomial path.
    torch.testing.assert_close(moved, labels[:, None, None, None].float().expand_as(moved), rtol=0, atol=1e-2)


# Guidance


def test_classifier_free_guidance_equals_autoguidance_with_the_null_class(network):
    class Null(nn.Module):
        def forward(self, z, times, labels):
            return network(z, times, torch.full_like(labels, network.null_label))

    scale = {"tex": 1.5, "sem": 3.0}
    cfg = ClassifierFreeGuidance(scale, network.null_label)
    args = (network, LEARNED, LAYOUT, LABELS, SEEDS, SHAPE)
    one = generate(*args, guidance=cfg, solver="heun", steps=8).latents
    two = generate(*args, guidance=AutoGuidance(Null(), scale), solver="heun", steps=8).latents
    torch.testing.assert_close(one, two, **SINGLE)
    unguided = generate(*args, solver="heun", steps=8).latents
    moved = (one - unguided).flatten(1).norm(dim=1)
    assert (moved[network.null_label != LABELS] > 0.05).all()
    assert moved[network.null_label == LABELS].max() < 1e-3, "the null class guides itself nowhere"


def test_scale_one_changes_nothing_and_costs_nothing(network):
    model = Counting(network)
    args = (LEARNED, LAYOUT, LABELS[:1], SEEDS[:1], SHAPE)
    plain = generate(model, *args)
    calls = model.calls
    guided = generate(model, *args, guidance=ClassifierFreeGuidance(1.0, network.null_label))
    assert torch.equal(plain.latents, guided.latents) and model.calls == 2 * calls


# The path


def test_trace_follows_the_same_path(network):
    args = (network, LEARNED, LAYOUT, LABELS, SEEDS, SHAPE)
    path = trajectory(make_flow(*args), Integration(), (0.0, 0.4, 1.0))
    assert path.states.shape == path.predictions.shape == (3, 8, 6, 4, 4) and path.times.shape == (3, 2)
    assert torch.equal(path.states[0], start(SEEDS.tolist()))
    torch.testing.assert_close(path.times, LEARNED(torch.tensor([0.0, 0.4, 1.0]))[0], rtol=0, atol=1e-6)  # float32
    assert torch.equal(path.states[2], generate(*args).latents), "the very same steps"
    assert torch.equal(path.predictions[2], path.states[2]), "at t = 1 nothing is left to predict"


# And the largest error at 0.31. Measured: Euler's, of first order, 4e-3, at the end 4e-2; the others' up to 3e-4.
SETTINGS = [
    (Integration(rtol=1e-4), 1e-3),
    (Integration("heun", steps=40), 1e-3),
    (Integration("midpoint", steps=40, grid="arc_length"), 1e-3),
    (Integration("ab2", steps=80), 1e-3),
    (Integration("euler", steps=100), 0.02),
]


@pytest.fixture(scope="module")
def nearly_exact(network):
    """The states at 0.31 and at the end by schedule, from far smaller steps."""
    return {
        name: trajectory(
            make_flow(network, schedule, LAYOUT, LABELS[:2], SEEDS[:2], SHAPE),
            Integration(rtol=1e-6, atol=1e-7),
            (0.31, 1.0),
        ).states
        for name, schedule in SCHEDULES.items()
    }


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("how", "error"), SETTINGS, ids=[how.solver for how, _ in SETTINGS])
def test_trace_keeps_to_solver_and_grid(network, nearly_exact, name, how, error):
    args = (network, SCHEDULES[name], LAYOUT, LABELS[:2], SEEDS[:2], SHAPE)
    path, exact = trajectory(make_flow(*args), how, (0.31, 1.0)), nearly_exact[name]
    samples = generate(*args, how.solver, how.atol, how.rtol, steps=how.steps, grid=how.grid)
    assert torch.equal(path.states[1], samples.latents)
    # States between steps are as good as at their ends.
    assert (path.states[0] - exact[0]).abs().max() < error
    assert (exact[0] - exact[1]).abs().max() > 0.2


# Errors


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Schedule.synchronous(["sem", "tex"]), "schedule has groups ['sem', 'tex'], the layout has ['tex', 'sem']"),
        (Schedule.synchronous(["tex"]), "['tex']"),
        (Schedule.synchronous(["tex", "sem", "dep"]), "['tex', 'sem', 'dep']"),
        (
            Schedule({"tex": IdentityCurve(), "sem": IdentityCurve()}, {"layout": LAYOUT.to_list()[:1] * 2}),
            "schedule was learned for",
        ),
    ],
)
def test_a_schedule_of_another_layout(network, schedule, message):
    schedule.provenance = {
        k: [{**g, "name": n} for g, n in zip(v, LAYOUT.names, strict=True)] for k, v in schedule.provenance.items()
    }
    with pytest.raises(UserError) as caught:
        generate(network, schedule, LAYOUT, LABELS, SEEDS, SHAPE)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("solver", ["dopri5", "heun", "euler"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_samples_that_are_not_finite(solver, bad):
    model = Plain(lambda z, t, y: torch.where((y == 1)[:, None, None, None], bad, z))
    labels = torch.tensor([0, 1, 0])
    with pytest.raises(UserError, match=r"sample 1 \(label 1, seed 41\): the latents are not finite"):
        generate(model, LEARNED, LAYOUT, labels, torch.arange(40, 43), SHAPE, solver=solver)


def test_labels_that_the_model_does_not_have(network):
    for bad in (11, -1):
        with pytest.raises(UserError, match=f"sample 2: label {bad}, but the model's are 0 to 10"):
            generate(network, LEARNED, LAYOUT, torch.tensor([0, 10, bad]), torch.arange(3), SHAPE)


def test_guidance_ramps_see_global_time(network):
    args = (network, LEARNED, LAYOUT, LABELS, SEEDS, SHAPE)
    options = {"solver": "heun", "steps": 8}
    flat, ramp, one = (
        generate(*args, guidance=ClassifierFreeGuidance(scale), **options).latents
        for scale in (2.0, Ramp(2.0, 2.0), Ramp(1.0, 2.0))
    )
    torch.testing.assert_close(flat, ramp, **SINGLE)
    assert (flat - one).abs().max() > 0.02
