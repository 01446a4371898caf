"""The probe against its closed-form dynamics on Gaussian data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gaussian import GaussianData
from lwd.data import LatentShards, StepBatches, write_shard
from lwd.data.shards import shard_key
from lwd.data.stats import save_stats, stats_path
from lwd.flow import group_factors
from lwd.groups import Group, Layout
from lwd.probe import Bisection, EarlyStop, LearnSettings, learn
from lwd.probe.bisection import weakest_stable
from lwd.runtime.compute import ComputeConfig
from lwd.schedules import PolynomialCurve
from lwd.schedules.collapse import Criterion, distance, mass
from lwd.schedules.distance import curve_distance

LAYOUT = Layout([Group("texture", 4, 1.0), Group("semantic", 2, 2.0)])
STEPS, BURN_IN, BATCH, RHO_LR = 250, 125, 128, 0.05
QUIET = ComputeConfig(device="cpu", progress=False)


class IdealDenoiser(nn.Module):
    """A denoiser of ideal capacity: v* at every state and local time, as a fixed differentiable function of both."""

    def __init__(self, data: GaussianData) -> None:
        super().__init__()
        self.data, self.layout = data, data.layout
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, z: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        return self.data.ideal_velocity(z.double(), times.double()).float() + 0 * self.unused


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[GaussianData, LatentShards]:
    """4 096 images, and the Gaussian with exactly their moments (all that losses of a linear velocity depend on).

    The texture is a linear function of the semantics and a little noise, so that knowing them first pays.
    """
    folder = tmp_path_factory.mktemp("gaussian")
    mixing = torch.tensor([[1.0, 0.5], [-0.5, 1.0], [0.8, -0.8], [0.3, 0.9]], dtype=torch.float64)
    latent = torch.cat([mixing, torch.eye(2, dtype=torch.float64)])
    cov = 0.1 * latent @ latent.T + 0.02 * torch.diag(torch.tensor([1.0, 1, 1, 1, 0, 0], dtype=torch.float64))
    _, x1 = GaussianData(LAYOUT, (1, 1), torch.zeros(6, dtype=torch.float64), cov + 1e-9 * torch.eye(6)).sample(4096)
    x1 = x1.float()
    write_shard(folder / "0.safetensors", LAYOUT, LAYOUT.split(x1), torch.zeros(len(x1)))
    for group in LAYOUT.groups:
        shape = (1, group.channels, 1, 1)
        save_stats(stats_path(folder, shard_key(group)), torch.zeros(shape), torch.ones(shape))
    flat = x1.double().flatten(1)
    exact = GaussianData(LAYOUT, (1, 1), flat.mean(0), torch.cov(flat.T, correction=0))
    return exact, LatentShards(folder, LAYOUT, flip=False, features=False)


def closed_form(data: GaussianData, settings: LearnSettings) -> Tensor:
    """rho averaged over Algorithm 1 with the expectation of every gradient: Adam on Eq. 38 in closed form."""
    curve = PolynomialCurve(settings.degree).double()
    optimizer = torch.optim.AdamW(curve.parameters(), lr=settings.rho_lr, weight_decay=0.0)
    tau = (torch.arange(128, dtype=torch.float64) + 0.5) / 128
    factors = torch.tensor(group_factors(LAYOUT, settings.reduction), dtype=torch.float64)
    kept = []
    for step in range(settings.steps):
        t, rate = curve(tau)
        times, rates = torch.stack([t, tau], 1), torch.stack([rate, torch.ones_like(tau)], 1)
        omega = rates.detach() if settings.jacobian == "stop" else rates
        flow = (omega * data.bayes_risk(times)) @ factors
        kinetic = (rates.square() * data.ideal_energy(times)).sum(1)
        optimizer.zero_grad()
        (flow + settings.kinetic_weight * kinetic).mean().backward()
        optimizer.step()
        if step >= settings.burn_in:
            kept.append(curve.rho.detach().clone())
    return torch.stack(kept).mean(0)


@pytest.mark.parametrize(("kinetic_weight", "jacobian"), [(0.02, "stop"), (0.3, "stop"), (0.02, "exact")])
def test_the_probe_lands_where_the_closed_form_dynamics_do(
    kinetic_weight: float, jacobian: str, data: tuple[GaussianData, LatentShards]
) -> None:
    gaussian, shards = data
    settings = LearnSettings(
        steps=STEPS, burn_in=BURN_IN, rho_lr=RHO_LR, kinetic_weight=kinetic_weight, jacobian=jacobian
    )
    batches = StepBatches(shards, BATCH, seed=0)
    learned = learn(IdealDenoiser(gaussian), batches, LAYOUT, "semantic", compute=QUIET, **settings.model_dump())

    tau = torch.linspace(0, 1, 101)
    found, _ = learned["texture"](tau)
    expected, _ = PolynomialCurve.from_rho(closed_form(gaussian, settings).float())(tau)
    start, _ = PolynomialCurve()(tau)
    # Measured deviations are below 0.01: Adam on noisy gradients of 256 samples, averaged over 200 steps.
    assert (found - expected).abs().max() < 0.03
    moved = float((expected - start).abs().max())
    assert moved > 0.1 if jacobian == "stop" else moved < 0.05, "the settings must differ in where they lead"


class Shrinkable(nn.Module):
    """The ideal velocity times a factor of each group and local time, which the probe trains: linear between 17 times.

    What the flow loss alone asks for is 1 everywhere.
    """

    def __init__(self, data: GaussianData) -> None:
        super().__init__()
        self.ideal, self.layout = IdealDenoiser(data), data.layout
        self.kept = nn.Parameter(torch.ones(2, 17))

    def forward(self, z: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        place = times.clamp(0, 1) * 16
        low = place.detach().long().clamp(max=15)
        part = place - low
        kept = [(1 - part[:, g]) * self.kept[g][low[:, g]] + part[:, g] * self.kept[g][low[:, g] + 1] for g in (0, 1)]
        scaled: Tensor = self.layout.expand(torch.stack(kept, 1), z) * self.ideal(z, times, labels)
        return scaled


@pytest.mark.parametrize(("trains", "collapses"), [("both", True), ("schedule", False)])
def test_a_large_lambda_collapses_where_the_kinetic_term_trains_the_denoiser(
    trains: str, collapses: bool, data: tuple[GaussianData, LatentShards]
) -> None:
    """The second collapse at lambda = 1: measured distances 0.029 and 0.671 after 250 steps."""
    gaussian, shards = data
    batches = StepBatches(shards, BATCH, seed=0)
    settings = {"steps": 150, "burn_in": 75, "lr": 0.05, "rho_lr": RHO_LR, "kinetic_weight": 1.0}
    model = Shrinkable(gaussian)
    learned = learn(model, batches, LAYOUT, "semantic", compute=QUIET, kinetic_trains=trains, **settings)
    found = distance(learned["texture"])
    assert found < 0.1 if collapses else found > 0.5


def test_the_search_finds_the_threshold_of_the_closed_form_and_real_probes_agree(
    data: tuple[GaussianData, LatentShards], tmp_path: Path
) -> None:
    """Auto-lambda on probes with the expectation of every gradient; then noisy ones on either side of what it found.

    Below the threshold probes reach one and the same extremal curve; just above it the mass on a_M is already most of
    the mixture while the curve is not near the extremal one, which is why the criterion asks for both.
    """
    gaussian, shards = data
    settings = LearnSettings(steps=100, burn_in=50, rho_lr=0.2)
    curves: dict[float, PolynomialCurve] = {}

    def is_stable(weight: float) -> bool:
        rho = closed_form(gaussian, settings.model_copy(update={"kinetic_weight": weight}))
        curves[weight] = PolynomialCurve.from_rho(rho.float())
        return not Criterion().holds(curves[weight])

    search, tried = Bisection(0.02, 0.2, 1.25), dict[float, bool]()
    while weights := search.next(tried, 1):
        tried |= {weight: is_stable(weight) for weight in weights}
    found = weakest_stable(tried)
    collapsed = sorted(weight for weight, stable in tried.items() if not stable)
    assert found is not None and found / collapsed[-1] < 1.26
    assert distance(curves[found]) > 0.1 and mass(curves[found]) > 0.5
    assert mass(curves[collapsed[0]]) > 0.9 and distance(curves[collapsed[0]]) < 0.05

    rule = EarlyStop(window=10, settled_within=0.0)
    for weight, expected in ((found / 3, "collapsed"), (found * 2, None)):
        one = settings.model_copy(update={"kinetic_weight": weight}).model_dump()
        network, batches, folder = IdealDenoiser(gaussian), StepBatches(shards, BATCH, seed=0), tmp_path / f"{weight:g}"
        learned = learn(network, batches, LAYOUT, "semantic", stop=rule, folder=folder, compute=QUIET, **one)
        stopped = learned.provenance
        assert stopped.get("stopped") == expected
        if expected is not None:
            assert stopped["steps"] <= settings.burn_in, "it need not wait for the average to begin"
            assert curve_distance(learned["texture"], curves[collapsed[0]]) < 0.1
