"""REPA features on another grid than the network's tokens: brought there, or refused before the first step."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from lwd.cli.main import app
from lwd.config import load
from lwd.data.shards import FEATURES, Batch
from lwd.errors import UserError
from lwd.flow import repa_loss
from lwd.models import register
from lwd.models.registry import BUILDERS
from lwd.schedules import Schedule
from lwd.stages import train
from lwd.stages.experiment import Experiment
from lwd.stages.train.run import DenoiserObjective
from lwd.training.logging import read_log
from networks import unet

DIGITS = "configs/digits.yaml"
PATCH_2 = "model.name=LightningDiT-Mini/2"


@pytest.fixture
def given(overrides: list[str]) -> list[str]:
    return [*overrides, "train.schedule.kind=synchronous", "train.steps=2"]


@pytest.fixture
def changed(data: Path, tmp_path: Path, given: list[str]) -> Callable[..., list[str]]:
    """The overrides, on a copy of the data whose features are cut to other axes."""

    def make(cut: Callable[[torch.Tensor], torch.Tensor]) -> list[str]:
        copy = tmp_path / "data"
        shutil.copytree(data, copy)
        for file in (copy / "train").glob("*.safetensors"):
            tensors = load_file(file)
            features = {key: cut(value).contiguous() for key, value in tensors.items() if key.startswith(FEATURES)}
            save_file(tensors | features, file)
        return [*given, f"data.path={copy}"]

    return make


def dry_run(overrides: list[str]) -> str:
    result = CliRunner().invoke(app, ["train", "-c", DIGITS, *overrides, "--dry-run"])
    assert result.exit_code in (0, 2)
    return "" if result.exit_code == 0 else result.stderr


def refused(overrides: list[str], line: str) -> None:
    """By the run before its first step, and by the dry run."""
    config = load(Experiment, Path(DIGITS), overrides)
    with pytest.raises(UserError, match=line):
        train.run(config)
    assert not list(config.output.rglob("trace.jsonl"))
    assert line in dry_run(overrides)


def test_patch_2_learns_from_means_of_4_features(given: list[str]) -> None:
    overrides = [*given, PATCH_2]
    config = load(Experiment, Path(DIGITS), overrides)
    assert dry_run(overrides) == ""
    trace = read_log(train.run(config).parent / "trace.jsonl")
    assert [line["repa"] > 0 for line in trace] == [True, True]

    layout, settings = config.layout, config.train
    features = torch.randn(3, 64, 4, 4, generator=torch.Generator().manual_seed(1))
    model = config.model.build(layout, (4, 4), 64)
    objective = DenoiserObjective(model, layout, Schedule.synchronous(layout.names), settings, 0)
    seen = {}
    model.register_forward_hook(lambda module, inputs, output: seen.update(projected=output[1]))
    batch = Batch(torch.randn(3, 6, 4, 4), torch.zeros(3, dtype=torch.int64), features)
    _, metrics = objective((batch, torch.arange(3)), 0)
    assert seen["projected"].shape == (3, 4, 64)
    pooled = torch.nn.functional.avg_pool2d(features, 2)
    torch.testing.assert_close(metrics["repa"], repa_loss(seen["projected"], pooled), rtol=1e-5, atol=1e-6)


def test_grids_that_do_not_divide_and_coarser_ones(changed: Callable[..., list[str]]) -> None:
    overrides = changed(lambda features: features[..., :3, :2])
    assert dry_run(overrides) == ""
    assert "repa" in read_log(train.run(load(Experiment, Path(DIGITS), overrides)).parent / "trace.jsonl")[-1]


def test_features_without_a_grid_are_refused_by_keys_that_exist(changed: Callable[..., list[str]]) -> None:
    overrides = changed(lambda features: features.mean((2, 3)))
    refused(overrides, "train.repa_weight: the REPA features in the shards lie on a grid")
    assert "encode.repa.encoder" in dry_run(overrides) and "feature_dim" not in dry_run(overrides)
    assert dry_run([*overrides, "train.repa_weight=0"]) == ""


def test_a_patch_that_does_not_fit_is_said_by_the_dry_run(given: list[str]) -> None:
    refused([*given, "model.name=LightningDiT-Mini/3"], "patch size 3 does not divide the latents' grid of 4")


def test_shards_without_features_are_said_by_the_dry_run(data: Path, tmp_path: Path, given: list[str]) -> None:
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    for file in (copy / "train").glob("*.safetensors"):
        save_file({key: value for key, value in load_file(file).items() if not key.startswith(FEATURES)}, file)
    refused([*given, f"data.path={copy}"], "no REPA features in these shards")


def test_an_own_network_says_where_its_tokens_lie(
    changed: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`networks.unet` has a token at each of the latents' 4 x 4 positions."""
    overrides = [*changed(lambda features: features[..., ::2, ::2]), "model={name: tokens, num_classes: 10}"]
    monkeypatch.setitem(BUILDERS, "tokens", unet)
    refused(overrides, r"give the network a token_grid")
    monkeypatch.delitem(BUILDERS, "tokens")

    @register("tokens")
    def build(layout, shape, num_classes, feature_dim=None):
        network = unet(layout, shape, num_classes, feature_dim=feature_dim)
        network.token_grid = shape
        return network

    monkeypatch.setitem(BUILDERS, "tokens", BUILDERS["tokens"])  # gone afterwards
    assert dry_run(overrides) == ""
    assert "repa" in read_log(train.run(load(Experiment, Path(DIGITS), overrides)).parent / "trace.jsonl")[-1]
