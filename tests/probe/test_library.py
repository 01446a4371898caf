"""Stage I as a library: any network, latents, condition, optimiser and loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gaussian import GaussianData
from lwd.data.batches import draw
from lwd.errors import UserError
from lwd.flow import group_factors
from lwd.groups import Group, Layout
from lwd.probe import Bisection, EarlyStop, Listed, Probe, learn, search
from lwd.runtime.compute import ComputeConfig
from lwd.schedules import Schedule
from lwd.schedules.collapse import distance_from_collapse
from lwd.training.guard import Guard

LAYOUT = Layout([Group("slow", 2, 1.0), Group("fast", 1, 2.0)])
QUIET = ComputeConfig(device="cpu", progress=False)
SHORT = {"steps": 24, "burn_in": 12, "lr": 1e-2, "rho_lr": 0.1, "kinetic_weight": 0.05}


class Net(nn.Module):
    """A network on vectors (B, 3) that takes a dict of tensors as condition."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3 + 2 + 1, 16), nn.Linear(16, 3)

    def forward(self, z: Tensor, times: Tensor, condition: dict[str, Tensor]) -> Tensor:
        return self.outer(torch.tanh(self.inner(torch.cat([z, times, condition["text"]], dim=1))))


def network() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Net()


class Steps:
    """Step data: a pure function of the step."""

    def __getitem__(self, step: int) -> tuple[tuple[Tensor, dict[str, Tensor]], Tensor]:
        generator = torch.Generator().manual_seed(step)
        fast = torch.randn(32, 1, generator=generator)
        x1 = torch.cat([0.9 * fast, -0.9 * fast, fast], dim=1) + 0.1 * torch.randn(32, 3, generator=generator)
        return (x1, {"text": fast.sign()}), torch.arange(32)

    def images(self, step: int) -> None:
        return None


def rho(schedule: Schedule) -> Tensor:
    return schedule.parameter_vectors()["slow"]


def test_the_loss_is_the_closed_form() -> None:
    """Gaussian data and their ideal velocity: L_flow = sum_g f_g E[t_g' risk_g], R_kin = E[sum_g t_g'^2 energy_g]."""
    mixing = torch.tensor([[1.0, 0.3, 0.5], [0.3, 0.8, 0.2], [0.5, 0.2, 1.0]], dtype=torch.float64)
    data = GaussianData(LAYOUT, (), torch.zeros(3, dtype=torch.float64), mixing @ mixing.T)
    probe = Probe(LAYOUT, "fast", 0.1, burn_in=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        probe.schedule["slow"].rho.copy_(torch.tensor([0.0, 0.5, -1.0, 0.2, 0.4]))  # type: ignore[operator, union-attr]
        found = []
        for _ in range(40):
            x1 = torch.randn(2000, 3, dtype=torch.float64, generator=generator) @ mixing.T
            terms = probe(lambda z, t: data.ideal_velocity(z.double(), t.double()), x1, generator=generator)
            found.append(torch.stack([terms.flow, terms.kinetic, terms.total]))
        tau = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
        times, rates = probe.schedule(tau)
        factors = torch.tensor(group_factors(LAYOUT, "mean_flat"), dtype=torch.float64)
        flow = ((rates * data.bayes_risk(times)) @ factors).mean()
        kinetic = (rates.square() * data.ideal_energy(times)).sum(1).mean()
    runs = torch.stack(found).double()
    expected = torch.stack([flow, kinetic, flow + 0.1 * kinetic])
    error = runs.std(0) / len(runs) ** 0.5
    assert bool(((runs.mean(0) - expected).abs() < 5 * error).all())  # five standard errors of the mean of 40 runs
    assert bool((error < 0.01 * expected).all()), "and that is a narrow bound"


def test_learn_is_a_loop_around_the_probe() -> None:
    """The same draws, AdamW and average by hand give the same curve."""
    learned = learn(network(), Steps(), LAYOUT, "fast", seed=5, compute=QUIET, **SHORT)
    model, probe, data = network(), Probe(LAYOUT, "fast", 0.05, burn_in=12), Steps()
    groups = [{"params": list(model.parameters()), "lr": 1e-2}, {"params": list(probe.parameters()), "lr": 0.1}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), weight_decay=0.0, fused=True)
    for step in range(24):
        (x1, condition), places = data[step]
        draws = draw(5, step, places, x1.shape[1:], 0.0)
        probe(lambda z, t, c=condition: model(z, t, c), x1, draws.u, draws.x0).total.backward()
        optimizer.step()
        optimizer.zero_grad()
        probe.after_step()
    assert torch.equal(rho(probe.averaged()), rho(learned))
    start = Probe(LAYOUT, "fast").schedule
    assert (rho(learned) - rho(start)).abs().max() > 0.1, "it must have learned something"


def test_a_probe_is_saved_and_goes_on_with_its_state_dict() -> None:
    def steps(probe: Probe, first: int, last: int) -> Probe:
        for step in range(first, last):
            with torch.no_grad():
                probe.schedule["slow"].rho.add_(step)  # type: ignore[operator, union-attr]
            probe.after_step()
        return probe

    whole = steps(Probe(LAYOUT, "fast", burn_in=3), 0, 8)
    half = steps(Probe(LAYOUT, "fast", burn_in=3), 0, 5)
    again = Probe(LAYOUT, "fast", burn_in=3)
    again.load_state_dict(half.state_dict())
    assert torch.equal(rho(steps(again, 5, 8).averaged()), rho(whole.averaged()))
    start = rho(Probe(LAYOUT, "fast").schedule)
    # After steps 0 ... k rho is its start + k (k + 1) / 2: over k = 3 ... 7 the mean of 6, 10, 15, 21, 28 is 16.
    torch.testing.assert_close(rho(whole.averaged()), start + 16.0)
    with pytest.raises(ValueError, match="nothing to average yet"):
        steps(Probe(LAYOUT, "fast", burn_in=3), 0, 3).averaged()


class Dropping(Net):
    """A network that draws by itself."""

    def forward(self, z: Tensor, times: Tensor, condition: dict[str, Tensor]) -> Tensor:
        return super().forward(nn.functional.dropout(z, 0.2), times, condition)


class KilledError(Exception):
    pass


class Dying(Steps):
    def __getitem__(self, step: int) -> Any:
        if step == 17:
            raise KilledError
        return super().__getitem__(step)


@pytest.mark.parametrize("stop", [None, EarlyStop(window=4, settled_within=10.0)])
@pytest.mark.parametrize("kind", [Net, Dropping])
def test_killed_it_goes_on_bit_for_bit(tmp_path: Path, kind: type[Net], stop: EarlyStop | None) -> None:
    def network() -> Net:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return kind()

    compute = QUIET.model_copy(update={"checkpoint_every": 5, "log_every": 5})
    more = {**SHORT, "seed": 1, "stop": stop, "compute": compute}
    whole = learn(network(), Steps(), LAYOUT, "fast", folder=tmp_path / "whole", **more)
    with pytest.raises(KilledError):
        learn(network(), Dying(), LAYOUT, "fast", folder=tmp_path / "halves", **more)
    halves = learn(network(), Steps(), LAYOUT, "fast", folder=tmp_path / "halves", **more)
    assert halves.to_dict() == whole.to_dict() == Schedule.load(tmp_path / "halves" / "schedule.json").to_dict()
    assert halves.provenance.get("stopped") == (None if stop is None else "settled")
    assert halves.provenance["steps"] == (24 if stop is None else 20), "two windows after burn-in"
    with pytest.raises(UserError, match=r"kinetic_weight was 0\.05, now 0\.06"):
        learn(network(), Steps(), LAYOUT, "fast", folder=tmp_path / "whole", **{**more, "kinetic_weight": 0.06})


@pytest.mark.parametrize(
    "optimizer",
    [torch.optim.SGD, torch.optim.Adagrad, torch.optim.RMSprop, torch.optim.NAdam, torch.optim.Adafactor],
)
def test_any_optimiser(tmp_path: Path, optimizer: type[torch.optim.Optimizer]) -> None:
    """Learns, and goes on from a checkpoint as if nothing had happened."""

    def make(model: nn.Module, probe: nn.Module) -> torch.optim.Optimizer:
        return optimizer([{"params": model.parameters()}, {"params": probe.parameters()}], lr=0.05)  # type: ignore[call-arg]

    compute = QUIET.model_copy(update={"checkpoint_every": 5, "clip_norm": 0.5})
    more = {**SHORT, "optimizer": make, "compute": compute}
    whole = learn(network(), Steps(), LAYOUT, "fast", **more)
    with pytest.raises(KilledError):
        learn(network(), Dying(), LAYOUT, "fast", folder=tmp_path, **more)
    assert torch.equal(rho(learn(network(), Steps(), LAYOUT, "fast", folder=tmp_path, **more)), rho(whole))
    assert not torch.equal(rho(whole), rho(Probe(LAYOUT, "fast").schedule))


@pytest.mark.parametrize("fused", [True, False])
def test_the_guard_clips_and_skips_with_any_optimiser(fused: bool) -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.0, fused=fused)
    twin = nn.Parameter(weight.detach().clone())
    other = torch.optim.AdamW([twin], lr=0.1, weight_decay=0.0)
    guard = Guard([weight], optimizer, clip=1.0, spike=None)
    for gradient in ([30.0, 40.0], [float("nan"), 1.0], [0.1, -0.2]):
        weight.grad = torch.tensor(gradient)
        metrics = guard.inspect()
        before = weight.detach().clone()
        guard.step()
        if float(metrics["skipped"]):
            assert torch.equal(weight, before)
            continue
        twin.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_([twin], 1.0)
        other.step()
        torch.testing.assert_close(weight, twin, rtol=1e-6, atol=0)  # PyTorch adds 1e-6 to the norm
    assert float(metrics["skipped"]) == 0 and guard.longest_run() == 1


@pytest.mark.parametrize(
    ("family", "curve"), [("rational-quadratic", {}), ("convex-spline", {}), ("power", {}), ("polynomial", {})]
)
def test_any_family(tmp_path: Path, family: str, curve: dict[str, Any]) -> None:
    learned = learn(
        network(), Steps(), LAYOUT, "fast", folder=tmp_path, compute=QUIET, **SHORT, family=family, curve=curve
    )
    again = Schedule.load(tmp_path / "schedule.json")
    assert again.hash() == learned.hash() and again["slow"].kind == family
    assert learned.provenance["distance_from_collapse"] == distance_from_collapse(learned)
    start = Schedule.learnable(LAYOUT.names, "fast", family, **curve)
    assert not torch.equal(rho(learned), rho(start))


def test_what_is_dropped() -> None:
    seen: list[Tensor] = []

    def drop(condition: dict[str, Tensor], dropped: Tensor) -> dict[str, Tensor]:
        seen.append(dropped)
        return {"text": torch.where(dropped[:, None], 0.0, condition["text"])}

    learn(network(), Steps(), LAYOUT, "fast", drop=drop, compute=QUIET, **{**SHORT, "label_dropout": 0.25})
    share = torch.stack(seen).float().mean()  # 768 draws: 0.25 within four deviations of 0.0156
    assert abs(float(share) - 0.25) < 4 * 0.0156


class Narrow(Net):
    def forward(self, z: Tensor, times: Tensor, condition: dict[str, Tensor]) -> Tensor:
        return super().forward(z, times, condition)[:, :2]


def test_a_plain_loader_goes_round() -> None:
    batches = [Steps()[i][0] for i in range(5)]
    learned = learn(network(), batches, LAYOUT, "fast", compute=QUIET, **SHORT)
    assert learned.learned == ("slow",)

    def used_up() -> Iterator[Any]:
        yield from ()

    with pytest.raises(UserError, match="the loader has no batches"):
        learn(network(), used_up(), LAYOUT, "fast", compute=QUIET, **SHORT)
    with pytest.raises(UserError, match=r"probe\.learn: .*rho_rl.*rho_lr"):
        learn(network(), batches, LAYOUT, "fast", compute=QUIET, rho_rl=0.1)
    with pytest.raises(ValueError, match=r"the network returns \(32, 2\) for latents of \(32, 3\)"):
        learn(Narrow(), batches, LAYOUT, "fast", compute=QUIET, **SHORT)


def test_search_finds_the_weakest_that_does_not_collapse() -> None:
    said: list[str] = []
    quick = {"steps": 150, "burn_in": 75, "lr": 1e-2, "rho_lr": 0.3}
    schedule, table = search(
        network, Steps(), LAYOUT, "fast", strategy=Listed((1e-4, 1.0)), compute=QUIET, say=said.append, **quick
    )
    assert [(row.kinetic_weight, row.collapsed) for row in table] == [(1e-4, True), (1.0, False)]
    assert schedule.provenance["lambda"] == 1.0 and schedule.provenance["steps"] == 150
    assert table[0].steps < 150 and table[0].stopped == "collapsed" and any("collapsed" in line for line in said)
    with pytest.raises(UserError, match=r"every lambda up to 0\.0002 collapsed"):
        search(network, Steps(), LAYOUT, "fast", strategy=Bisection(1e-4, 2e-4, 2.0, 0), compute=QUIET, **quick)


def test_probes_too_short_to_move_choose_nothing() -> None:
    short = {"steps": 4, "burn_in": 2, "rho_lr": 1e-4}
    with pytest.raises(UserError, match=r"search: no probe's curve has left where it began.*4 steps at rho_lr 0\.0001"):
        search(network, Steps(), LAYOUT, "fast", strategy=Bisection(0.01, 0.1), compute=QUIET, say=str, **short)
