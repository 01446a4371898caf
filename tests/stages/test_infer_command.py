"""`lwd schedule infer` on networks of a few steps, which know no line yet, and on what it cannot take."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lwd.cli.main import app
from lwd.data import write_shard, write_stats
from lwd.models import load_model
from lwd.stages import train
from lwd.stages.experiment import Experiment


@pytest.fixture
def checkpoint(experiment: Experiment) -> Path:
    offset = experiment.train.schedule.model_copy(update={"kind": "offset"})
    return train.run(experiment.model_copy(update={"train": experiment.train.model_copy(update={"schedule": offset})}))


def infer(*words: str):
    return CliRunner().invoke(app, ["schedule", "infer", *words])


def test_a_network_of_eight_steps_gets_no_answer_and_no_file(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    out, png = tmp_path / "schedule.json", tmp_path / "found.png"
    folder = tmp_path / "released"
    shutil.copytree(checkpoint / "ema", folder)  # as `lwd convert` leaves one: no schedule beside it
    result = infer(str(folder), "--data", str(data), "--images", "6", "--out", str(out), "--png", str(png))
    assert result.exit_code == 1 and "cannot tell" in result.stdout, result.output
    assert png.read_bytes().startswith(b"\x89PNG") and not out.exists()
    for family in ("synchronous", "offset:", "power:"):
        assert any(line.startswith(family) for line in result.stdout.splitlines())


def test_what_does_not_fit_is_one_line(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.json"
    there.write_text("{}")
    three = tmp_path / "three"
    shutil.copytree(checkpoint / "ema", three)
    config = json.loads((three / "config.json").read_text())
    config["num_classes"] = 3
    (three / "config.json").write_text(json.dumps(config))
    for words, said in (
        ([str(checkpoint), "--data", str(tmp_path / "none")], "none"),
        ([str(tmp_path / "none"), "--data", str(data)], "no such checkpoint folder"),
        ([str(checkpoint), "--data", str(data), "--out", str(there)], "exists"),
        ([str(three), "--data", str(data)], "y_embedder"),
    ):
        result = infer(*words)
        assert result.exit_code == 2 and result.stderr.count("\n") == 1 and said in result.stderr, result.output


def test_convert_looks_for_the_schedule_where_it_has_data(tmp_path: Path) -> None:
    """SFD's file of random weights: the folder is written, nothing is told; of no data, too."""
    file = Path(__file__).parents[1] / "models" / "sfd_tiny.pt"
    assert CliRunner().invoke(app, ["convert", str(file), str(tmp_path / "plain")]).exit_code == 0
    model = load_model(tmp_path / "plain")
    shards = tmp_path / "shards"
    shards.mkdir()
    torch.manual_seed(0)
    latents = {g.name: torch.randn(3, g.channels, *model.shape[1:]) for g in model.layout.groups}
    write_shard(shards / "latents_rank00_shard0000.safetensors", model.layout, latents, torch.tensor([0, 1, 2]))
    write_stats(shards, model.layout)
    result = CliRunner().invoke(app, ["convert", str(file), str(tmp_path / "looked"), "--data", str(shards)])
    assert result.exit_code == 0 and "cannot tell" in result.stdout, result.output
    assert not (tmp_path / "looked" / "schedule.json").exists()
    result = CliRunner().invoke(app, ["convert", str(file), str(tmp_path / "other"), "--data", str(tmp_path / "none")])
    assert result.exit_code == 2 and "none" in result.stderr and result.stderr.count("\n") == 1
    assert (tmp_path / "other" / "model.safetensors").is_file(), "what was converted is kept"
