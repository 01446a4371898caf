"""The study's driver at a miniature size: every stage once, found again, and the page from the rows alone."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import ttest_1samp
from sklearn.linear_model import LinearRegression

from lwd.config import load
from lwd.errors import UserError
from lwd.probe.task import ProbeObjective
from lwd.schedules import Schedule
from lwd.stages.experiment import Experiment
from lwd.stages.semvae.loop import SemVAEObjective
from lwd.stages.train.run import DenoiserObjective

FOLDER = Path(__file__).parents[2] / "experiments" / "study"
sys.path.insert(0, str(FOLDER))

import design  # noqa: E402
import page  # noqa: E402
import prediction  # noqa: E402
import run  # noqa: E402
import stats  # noqa: E402
import study  # noqa: E402

MINIATURE = (
    "model={name: LightningDiT-Mini/1, num_classes: 10, depth: 2}",
    "compute.progress=false",
    "encode.batch=500",
    "encode.encoder_steps=3",
    "encode.judge_steps=3",
    "semvae={channels: 2, depth: 1, steps: 2, warmup: 1, batch: 8}",
    "probe={steps: 4, burn_in: 2, batch: 8}",
    "sweep={kinetic_weights: [0.05, 0.1], processes: 1, collapsed_below: 0.0, early_stop: false}",
    "train.batch=8",
    "sample={num: 12, batch: 12, solver: heun, steps: 2}",
    "compare.processes=1",
    "study.regression_images=60",
    "study.weak.steps=2",
    "study.solvers.heun5.steps=1",
    "study.cells={trained: {encoder: trained, budgets: [2, 4], guided: true, solvers: [heun5], probe_seeds: [1], "
    "probe_lengths: [2], weaker: [4], stronger: [3], variants: [synchronous, offset, learned-stop, collapsed]}, "
    "free: {encoder: semvae, conditional: false, budgets: [2], variants: [synchronous, learned-exact], "
    "changes: {model: {depth: 3}}}, "
    "random: {encoder: random, budgets: [2], variants: [synchronous]}, "
    "poor: {encoder: poor, budgets: [2], variants: [synchronous]}}",
)
VARIANTS = ["synchronous", "offset", "learned-stop", "collapsed"]


def command(folder: Path, *more: str) -> int:
    places = ["--output", str(folder / "run"), "--results", str(folder / "results"), "--page", str(folder / "page.md")]
    return study.main(["--preset", "cpu", *places, *more, *MINIATURE])


def written(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and "run" not in path.relative_to(folder).parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction, "GLOBAL_TIMES", 3)
        patch.setattr(prediction, "NODES", 4)
        assert command(folder) == 0
    return folder


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results" / f"{name}.jsonl").read_text().splitlines()]


def test_a_row_for_every_cell_of_the_design(done: Path) -> None:
    rows = read(done, "measurements")
    found = {(r["cell"], r["variant"], r["steps"], r["solver"], r["guided"]) for r in rows}
    ways = [(2, "heun2", False), (4, "heun2", False), (4, "heun1", False), (4, "heun2", True)]
    expected = {("trained", v, *way) for v in VARIANTS for way in ways}
    expected |= {("free", v, 2, "heun2", False) for v in ("synchronous", "learned-exact")}
    expected |= {(cell, "synchronous", 2, "heun2", False) for cell in ("random", "poor")}
    assert found == expected and len(rows) == len(expected)
    for row in rows:
        assert row["samples"] == 12 and row["frechet"] > 0 and row["preset"] == "cpu"
        if row["variant"] != "offset":  # whose kinks cost further steps
            assert row["nfe"] == int(row["solver"].removeprefix("heun")) * 2  # Heun evaluates twice a step
        assert (row["accuracy"] is None) == (row["cell"] == "free")
        assert (row["weak_weights"] is not None) == row["guided"]
        assert all(len(row[key]) == 12 for key in ("config", "recipe", "schedule", "weights", "data"))
    assert len({r["config"] for r in rows}) == len(rows)
    encoders = {r["cell"]: r["data"] for r in rows}
    assert len(set(encoders.values())) == 4


def test_probes_and_their_schedules(done: Path) -> None:
    probes = read(done, "probes")
    names = {r["probe"] for r in probes if r["cell"] == "trained"}
    swept = {"sweep/lambda-0.05", "sweep/lambda-0.1"}
    assert names == {*swept, "exact", "seed-1", "steps-2", "weaker-4", "exact-weaker-4", "stronger-3"}
    by_name = {r["probe"]: r for r in probes if r["cell"] == "trained"}
    assert by_name["sweep/lambda-0.05"]["chosen"] and not by_name["sweep/lambda-0.1"]["chosen"]
    assert by_name["weaker-4"]["lambda"] == 0.05 / 4 and by_name["seed-1"]["seed"] == 1
    assert by_name["exact-weaker-4"]["lambda"] == 0.05 / 4 and by_name["stronger-3"]["lambda"] == 0.05 * 3
    jacobians = {"exact": "exact", "exact-weaker-4": "exact", "weaker-4": "stop", "stronger-3": "stop"}
    assert {name: by_name[name]["jacobian"] for name in jacobians} == jacobians
    assert by_name["steps-2"]["steps"] == 2
    collapsed = Schedule.load(done / "results" / "schedules" / "trained" / "collapsed.json")
    times, rates = collapsed(torch.tensor([0.5]))
    torch.testing.assert_close(times, torch.tensor([[0.5**5, 0.5]]))
    torch.testing.assert_close(rates, torch.tensor([[5 * 0.5**4, 1.0]]))
    of = {(r["cell"], r["variant"]): r["schedule"] for r in read(done, "measurements")}
    free = {r["probe"]: r["schedule"] for r in probes if r["cell"] == "free"}
    assert of["trained", "collapsed"] == collapsed.hash() and of["free", "learned-exact"] == free["exact"]
    assert of["trained", "learned-stop"] == by_name["sweep/lambda-0.05"]["schedule"]


def test_a_prediction_for_every_cell_and_probe(done: Path) -> None:
    rows = {row["cell"]: row for row in read(done, "predictions")}
    assert rows.keys() == {"trained", "free", "random", "poor"}
    names = {one["probe"] for one in rows["trained"]["probes"]}
    assert names == {"sweep/lambda-0.05", "sweep/lambda-0.1", "exact", "exact-weaker-4", "weaker-4", "stronger-3"}
    assert rows["free"]["conditional"] is False and rows["trained"]["conditional"] is True
    for row in rows.values():
        assert row["drives"].keys() == {"own", "help", "harm", "kinetic"} and math.isfinite(row["estimate"])


def test_a_cell_may_change_the_network(done: Path) -> None:
    runs = {cell: done / "run" / "cells" / cell / "train" / "synchronous-seed0" for cell in ("trained", "free")}
    depths = {cell: load(Experiment, folder / "config.yaml").model.depth for cell, folder in runs.items()}
    assert depths == {"trained": 2, "free": 3}


def test_finished_work_is_found_again_and_the_page_is_the_same(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written(done)
    assert {"page.md", "results/measurements.jsonl", "results/cpu-convergence.png"} <= before.keys()

    def never(*_: object) -> None:
        raise AssertionError("finished work was done again")

    for module, name in ((run.sample, "run"), (run, "measure"), (run, "explained"), (prediction, "surfaces")):
        monkeypatch.setattr(module, name, never)
    for objective in (DenoiserObjective, ProbeObjective, SemVAEObjective):
        monkeypatch.setattr(objective, "forward", never)
    assert command(done) == 0
    assert written(done) == before


def test_the_page_keeps_what_other_presets_wrote(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    page.write_page(file, "cpu", "first")
    page.write_page(file, "gpu", "second")
    page.write_page(file, "cpu", "third")
    text = file.read_text()
    assert "first" not in text and text.index("third") < text.index("second") and text.startswith(page.HEAD)
    page.write_page(file, "gpu", "second")
    assert file.read_text() == text


@pytest.mark.parametrize("preset", ["cpu", "gpu"])
def test_the_presets_have_the_whole_design_where_it_counts(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(design.StudyConfig, FOLDER / "presets" / f"{preset}.yaml")
    monkeypatch.setattr(design, "_has_schedule", lambda *_: True)
    main = [m for m in design.measurements(config) if m.run.cell == config.study.main and not m.guided and not m.solver]
    assert len(main) == 7 * 3 * 4  # variants, seeds, budgets
    for measurement in design.measurements(config):
        one = design.sample_config(config, measurement)
        assert measurement.steps in one.train.checkpoint_steps and one.sample.seed == one.seed == measurement.run.seed
    free = design.cell_config(config, "trained-unconditional")
    assert free.train.label_dropout == free.probe.label_dropout == 1 and free.sample.labels == "null"


def test_wrong_names_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("study.main=nowhere", "study.cells.random.encoder=nowhere", "study.cells.random.variants=[nowhere]"):
        with pytest.raises(UserError, match="'nowhere' is not one of"):
            load(design.StudyConfig, FOLDER / "presets" / "cpu.yaml", [wrong])
    assert study.main(["--preset", "cpu", "--output", str(tmp_path), "study.main=nowhere"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_paired_tests_and_their_verdicts() -> None:
    a, b = {0: 1.0, 1: 2.1, 2: 2.9, 7: 5.0}, {0: 2.0, 1: 3.0, 2: 4.0, 8: 0.0}
    test = stats.paired(a, b)
    assert test is not None and test.p is not None
    differences = [-1.0, -0.9, -1.1]
    assert test.differences == pytest.approx(differences)  # of the seeds that both have
    assert test.p == pytest.approx(ttest_1samp(differences, 0).pvalue)  # a paired test is one of the differences
    assert test.verdict == "lower"
    assert stats.Paired((-1.0, -0.9), 0.01).verdict == "undecided"  # two seeds never decide
    assert stats.Paired((-1.0, -0.9, 0.1), 0.01).verdict == "undecided"
    assert stats.Paired((1.0, 0.9, 1.1), 0.01).verdict == "higher"
    assert stats.Paired((1.0, 0.9, 1.1), 0.06).verdict == "undecided"
    assert stats.paired({0: 1.0}, {1: 1.0}) is None


def test_steps_to_reach_are_exact_on_a_power_law() -> None:
    """FD = 1000 / steps is a straight line on log-log axes, so that interpolation is exact."""
    points = [(steps, 1000 / steps) for steps in (100, 400, 1600)]
    assert stats.steps_to_reach(points, 4.0) == pytest.approx(250)
    assert stats.steps_to_reach(points, 0.7) == pytest.approx(1000 / 0.7)
    assert stats.steps_to_reach(points, 50.0) == 100
    assert stats.steps_to_reach(points, 0.5) is None


def test_distances_between_probes() -> None:
    """tau and tau^5 are farthest apart where 5 tau^4 = 1; the grid of 1 001 points misses that by under 1e-5."""
    identity, extremal = ({"rho": {"tex": [1.0 if m == at else -40.0 for m in range(5)]}} for at in (0, 4))
    peak = 5 ** (-1 / 4)
    assert stats.between(identity, extremal) == pytest.approx(peak - peak**5, abs=1e-5)
    assert stats.from_extremal(identity) == pytest.approx(peak - peak**5, abs=1e-5)
    assert stats.from_extremal(extremal) < 1e-6
    assert stats.widest([identity, extremal, extremal]) == pytest.approx(peak - peak**5, abs=1e-5)
    assert stats.widest([identity]) is None


def test_explained_variance_of_a_linear_world(tmp_path: Path) -> None:
    """Texture = a map of semantics plus class + noise: R^2 of plain least squares, which needs no penalty here."""
    from lwd.data import LatentShards, write_shard, write_stats
    from lwd.groups import Group, Layout
    from semantics import explained

    layout = Layout([Group("tex", 2), Group("sem", 1)])
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(4, 8, generator=generator)
    for split, count in (("train", 400), ("heldout", 400)):
        sem = torch.randn(count, 4, generator=generator)
        labels = torch.arange(count) % 2
        tex = sem @ mix / 2 + torch.randn(count, 8, generator=generator) + 2 * labels[:, None]
        latents = {"tex": tex.view(-1, 2, 2, 2), "sem": sem.view(-1, 1, 2, 2)}
        write_shard(tmp_path / split / "shard.safetensors", layout, latents, labels)
        write_stats(tmp_path / split, layout)
    row = explained(tmp_path, layout, "sem", 400)

    def flat(split: str) -> tuple[Any, Any]:
        x1 = LatentShards(tmp_path / split, layout, flip=False, features=False).read(torch.arange(400)).x1
        return x1[:, 2:].flatten(1).numpy(), x1[:, :2].flatten(1).numpy()

    (sem, tex), (sem_held, tex_held) = flat("train"), flat("heldout")
    classes = np.arange(400)[:, None] % 2
    squared = {
        "nothing": ((tex_held - tex_held.mean(0)) ** 2).sum(),
        "sem": ((tex_held - LinearRegression().fit(sem, tex).predict(sem_held)) ** 2).sum(),
        "class": ((tex_held - np.stack([tex[k::2].mean(0) for k in (0, 1)])[classes[:, 0]]) ** 2).sum(),
    }
    both = LinearRegression().fit(np.hstack([sem, classes]), tex).predict(np.hstack([sem_held, classes]))
    squared["both"] = ((tex_held - both) ** 2).sum()
    assert row["r2_ridge"] == pytest.approx(1 - squared["sem"] / squared["nothing"], abs=0.01)
    assert row["r2_label"] == pytest.approx(1 - squared["class"] / squared["nothing"], abs=0.01)
    assert row["r2_given_label"] == pytest.approx(1 - squared["both"] / squared["class"], abs=0.01)
    assert row["r2_label"] > 0.2 and row["r2_given_label"] > row["r2_ridge"] + 0.05  # so that they can be told apart
    assert 0.3 < row["label_accuracy"] < 0.7 and math.isfinite(row["r2_mlp"])


def test_the_random_encoder_is_the_trained_one_before_training(done: Path) -> None:
    """Random features for the latents, the trained network's for REPA, which is the same network in every encoder."""
    manifests = {
        name: json.loads((done / "run" / "encoders" / name / "data" / "manifest.json").read_text())
        for name in ("random", "trained", "semvae")
    }
    trained = manifests["trained"]["semantic"]["weights_sha256"]
    assert manifests["random"]["semantic"]["weights_sha256"] != trained
    assert manifests["random"]["repa"]["weights_sha256"] == trained
    assert manifests["semvae"]["semantic"]["weights_sha256"] == trained
    data = done / "run" / "encoders" / "random" / "data"
    network, initial = (load_file(data / f"{file}.safetensors") for file in ("semantic", "random"))
    assert network.keys() == initial.keys()
    norm, moved = initial["norm.weight"], network["norm.weight"]
    assert torch.equal(norm, torch.ones(64)) and not torch.equal(moved, norm)  # LayerNorm starts at 1
