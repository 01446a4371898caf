"""`lwd schedule infer` on networks of a few steps, which know no line yet, and on what it cannot take."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lwd.cli.main import app
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
