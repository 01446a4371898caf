"""The study's closed-form prediction against the Gaussian of tests/gaussian.py; its control."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gaussian import GaussianData
from lwd.config import load
from lwd.data import LatentShards, write_shard, write_stats
from lwd.files import write_json
from lwd.flow import group_factors
from lwd.groups import Group, Layout
from lwd.schedules import PolynomialCurve

FOLDER = Path(__file__).parents[2] / "experiments" / "study"
sys.path.insert(0, str(FOLDER))

import design  # noqa: E402
import prediction  # noqa: E402
from shuffled import shuffle, within_classes  # noqa: E402

LAYOUT = Layout([Group("tex", 2, 1.0), Group("sem", 1, 2.0)])
DEGREE = 4


@pytest.fixture(scope="module")
def data() -> GaussianData:
    return GaussianData.random(LAYOUT, (2, 1), seed=3)


@pytest.fixture(scope="module")
def surfaces(data: GaussianData) -> prediction.Surfaces:
    factors = group_factors(LAYOUT, "mean_flat")
    return prediction.tabulate(data.cov.numpy(), data.mean.square().numpy(), 4, factors)


def quantities(data: GaussianData, surfaces: prediction.Surfaces, curve: Any) -> dict[str, float]:
    """Corrected flow loss of each group and the kinetic energy under t_tex = curve(tau), by the reference."""
    t, rate = curve(surfaces.tau)
    times = torch.stack([t, surfaces.tau], 1)
    rates = torch.stack([rate, torch.ones_like(rate)], 1)
    flow = surfaces.weights @ (rates * data.bayes_risk(times) * surfaces.factors)
    return {
        "tex": float(flow[0]),
        "sem": float(flow[1]),
        "kinetic": float(surfaces.weights @ (rates.square() * data.ideal_energy(times)).sum(1)),
    }


def straight(way: float) -> Any:
    """The curve that lies ``way`` between tau and tau^(DEGREE + 1)."""
    power = DEGREE + 1
    return lambda tau: (tau + way * (tau**power - tau), 1 + way * (power * tau**DEGREE - 1))


def test_tables_are_the_closed_form(data: GaussianData, surfaces: prediction.Surfaces) -> None:
    """25 Chebyshev nodes of an analytic function; between them, so that interpolation is what is tested."""
    for fraction in (0.0, 0.013, 0.37, 0.8, 0.999):
        a = torch.full_like(surfaces.tau, fraction)
        times = torch.stack([a, surfaces.tau], 1)
        torch.testing.assert_close(surfaces.at(surfaces.risk, a), data.bayes_risk(times), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(surfaces.at(surfaces.energy, a), data.ideal_energy(times), rtol=1e-5, atol=1e-6)


def test_drives_add_up_to_differences_of_losses(data: GaussianData, surfaces: prediction.Surfaces) -> None:
    """The exact gradient is one: its path integral is the loss at the end less that at the start; so is the kinetic's.

    Gauss-Legendre nodes of smooth integrands; what is left is the tables' interpolation, 1e-5 of them.
    """
    found = prediction.drives(surfaces, DEGREE)
    start, end = (quantities(data, surfaces, straight(way)) for way in (0.0, 1.0))
    assert found["help"] == pytest.approx(end["tex"] - start["tex"], abs=2e-5)
    assert found["harm"] == pytest.approx(end["sem"] - start["sem"], abs=2e-5)
    assert found["kinetic"] == pytest.approx(end["kinetic"] - start["kinetic"], rel=1e-4)


def test_the_stopped_drive_is_the_semi_gradient(data: GaussianData, surfaces: prediction.Surfaces) -> None:
    """Own: t' held fixed while the curve moves, by differences of the reference."""
    total, parts, step = 0.0, 200, 1e-4
    for way in (np.arange(parts) + 0.5) / parts:
        _, rate = straight(way)(surfaces.tau)
        sides = [
            surfaces.weights
            @ (rate * data.bayes_risk(torch.stack([straight(way + move)(surfaces.tau)[0], surfaces.tau], 1))[:, 0])
            for move in (-step, step)
        ]
        total += float(surfaces.factors[0] * (sides[1] - sides[0]) / (2 * step)) / parts
    assert prediction.drives(surfaces, DEGREE)["own"] == pytest.approx(total, abs=2e-4)


def test_unrelated_groups_neither_help_nor_harm_but_the_stopped_drive_stays() -> None:
    """Without any relation the exact account is 0 and the stopped one is not: as the page says."""
    cov = np.diag([0.3, 0.3, 0.5, 0.5, 1.0, 1.0])
    found = prediction.drives(prediction.tabulate(cov, np.zeros(6), 4, [2 / 3, 2 / 3]), DEGREE)
    assert found["help"] == pytest.approx(0, abs=1e-5) and found["harm"] == pytest.approx(0, abs=1e-12)
    assert found["own"] < -0.01


@pytest.mark.parametrize("shrunk", [False, True])
def test_algorithm_1_in_closed_form(data: GaussianData, surfaces: prediction.Surfaces, shrunk: bool) -> None:
    """Gradient descent by hand on the reference's losses, with the same Adam, after a few steps.

    The shrunk velocity c v* minimises w t' |v - u|^2 + lambda t'^2 |v|^2; its losses are those of the map c K z + c k.
    """
    config = load(design.StudyConfig, FOLDER / "presets" / "cpu.yaml", ["probe.steps=12", "probe.burn_in=10"])
    found = prediction.closed_form(surfaces, config, 0.05, "stop", shrunk)
    curve = PolynomialCurve(config.probe.degree).double()
    adam = torch.optim.Adam(curve.parameters(), lr=config.probe.rho_lr)
    kept = []
    for step in range(12):
        t, rate = curve(surfaces.tau)
        times = torch.stack([t, surfaces.tau], 1)
        rates = torch.stack([rate, torch.ones_like(rate)], 1)
        fixed = rates.detach()
        c = surfaces.factors * fixed / (surfaces.factors * fixed + 0.05 * fixed.square())
        scale = data.per_entry(c if shrunk else torch.ones_like(c))
        slope, offset = data.ideal_map(times)
        slope, offset = scale[..., None] * slope, scale * offset
        loss = (fixed * data.linear_losses(slope, offset, times) * surfaces.factors).sum(1)
        loss = loss + 0.05 * (rates.square() * data.linear_energy(slope, offset, times)).sum(1)
        adam.zero_grad()
        (surfaces.weights @ loss).backward()
        adam.step()
        kept += [curve.rho.detach().clone()] if step >= 10 else []
    assert found.rho.tolist() == pytest.approx(torch.stack(kept).mean(0).tolist(), abs=1e-3)


def test_shuffling_keeps_all_but_which_semantics_belong_to_which_image(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (30,), generator=generator)
    sem = torch.randn(30, 1, 2, 2, generator=generator)
    latents = {"tex": torch.randn(30, 2, 2, 2, generator=generator), "sem": sem}
    flipped = {name: each.flip(-1) for name, each in latents.items()}
    for split in ("train", "heldout"):
        for part, rows in enumerate((slice(0, 20), slice(20, 30))):
            file = tmp_path / "a" / split / f"latents_rank00_shard000{part}.safetensors"
            mine, twins = ({name: each[rows] for name, each in side.items()} for side in (latents, flipped))
            write_shard(file, LAYOUT, mine, labels[rows], flipped=twins)
        write_stats(tmp_path / "a" / split, LAYOUT)
    shards = [{"file": f"latents_rank00_shard000{part}.safetensors", "sha256": ""} for part in (0, 1)]
    splits = {split: {"shards": shards} for split in ("train", "heldout")}
    required = {"format": "lwd.data/1", "recipe": {}, "texture": {"group": "tex", "encoder": "identity"}, "judge": None}
    write_json(tmp_path / "a" / "manifest.json", required | {"fingerprint": "abc", "splits": splits})
    shuffle(tmp_path / "a", tmp_path / "b", LAYOUT, "sem", 0)
    for flip in (False, True):
        twins = torch.full((30,), flip)
        before, after = (
            LatentShards(tmp_path / name / "train", LAYOUT, features=False).read(torch.arange(30), twins)
            for name in ("a", "b")
        )
        assert torch.equal(before.labels, after.labels) and torch.equal(before.x1[:, :2], after.x1[:, :2])
        order = within_classes(labels, 0)
        assert torch.equal(after.x1[:, 2:], before.x1[order, 2:]) and not torch.equal(after.x1, before.x1)
    assert sorted(order.tolist()) == list(range(30)) and torch.equal(labels[order], labels)
    assert not (order == torch.arange(30)).any()
    first = (tmp_path / "b" / "manifest.json").read_text()
    assert first != (tmp_path / "a" / "manifest.json").read_text()
    write_json(tmp_path / "a" / "manifest.json", required | {"fingerprint": "xyz", "splits": splits})
    shuffle(tmp_path / "a", tmp_path / "b", LAYOUT, "sem", 0)  # of another source: made anew
    assert (tmp_path / "b" / "manifest.json").read_text() != first
