"""A network without a schedule, as `lwd convert` leaves one that was given none: no command guesses it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lwd.cli.main import app
from lwd.errors import UserError
from lwd.models import WEIGHTS
from lwd.schedules import Schedule
from lwd.stages import train
from lwd.stages.experiment import Experiment

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"
LINE = "released: a network without schedule.json, and none is guessed; give what it was trained under by `lwd convert"


@pytest.fixture
def released(experiment: Experiment, tmp_path: Path) -> Path:
    """The model of a checkpoint alone, beside the checkpoint OUTPUT/train/learned/step-00000008."""
    offset = experiment.train.schedule.model_copy(update={"kind": "offset"})
    end = train.run(experiment.model_copy(update={"train": experiment.train.model_copy(update={"schedule": offset})}))
    shutil.copytree(end / "ema", tmp_path / "released")
    return tmp_path / "released"


def test_every_command_asks_for_it_in_the_same_words(released: Path, overrides: list[str], tmp_path: Path) -> None:
    config = ["--config", str(DIGITS), *overrides]
    commands = (
        ["sample", *config, f"sample.checkpoint={released}"],
        ["sample", *config, f"sample.checkpoint={released}", "sample.schedule=offset:0.3"],
        ["sample", *config, f"sample.guidance={{kind: auto, weak: {released}}}"],
        ["map", *config, f"map.checkpoint={released}"],
        ["evaluate", str(released), *config, "--reference", str(tmp_path / "none.npz")],
        ["export", str(released), str(tmp_path / "exported")],
    )
    for words in commands:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2, (words, result.output)
        assert result.stderr.count("\n") == 1 and LINE in result.stderr, (words[0], result.stderr)
    assert not (tmp_path / "exported").exists() and not (tmp_path / "run" / "samples").exists()


def test_a_pipeline_asks_too(released: Path, tmp_path: Path) -> None:
    pipeline = pytest.importorskip("lwd.pipeline", reason="needs diffusers")
    main = tmp_path / "main"
    shutil.copytree(released, main)
    Schedule.offset(("tex", "sem"), "sem", 0.3).save(main / "schedule.json")
    with pytest.raises(UserError, match=LINE):
        pipeline.LwdPipeline.from_checkpoint(released, data=tmp_path)
    with pytest.raises(UserError, match=LINE):
        pipeline.LwdPipeline.from_checkpoint(main, data=tmp_path, weak=released)


def test_with_the_schedule_given_it_samples(released: Path, overrides: list[str]) -> None:
    assert (released / WEIGHTS).is_file()
    Schedule.offset(("tex", "sem"), "sem", 0.3).save(released / "schedule.json")
    words = ["sample", "--config", str(DIGITS), *overrides, f"sample.checkpoint={released}", "sample.num=4"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output


def test_what_is_a_model_folder_already_is_not_exported(released: Path, tmp_path: Path) -> None:
    Schedule.offset(("tex", "sem"), "sem", 0.3).save(released / "schedule.json")
    result = CliRunner().invoke(app, ["export", str(released), str(tmp_path / "exported")])
    assert result.exit_code == 2 and "a model folder already" in result.stderr and result.stderr.count("\n") == 1
