"""An exported checkpoint: loadable, with its schedule, and a card that says what it is."""

import pytest
import torch
import yaml
from typer.testing import CliRunner

from lwd.cli.main import app
from lwd.models import LightningDiT, load_model
from lwd.models.pretrained import load_checkpoint_model
from lwd.schedules import Schedule
from lwd.stages import train


@pytest.fixture
def checkpoint(experiment):
    offset = experiment.train.schedule.model_copy(update={"kind": "offset"})
    return train.run(experiment.model_copy(update={"train": experiment.train.model_copy(update={"schedule": offset})}))


def test_export(checkpoint, tmp_path):
    target = tmp_path / "export"
    result = CliRunner().invoke(app, ["export", str(checkpoint), str(target)])
    assert result.exit_code == 0 and "the average after 8 steps" in result.output
    assert {p.name for p in target.iterdir()} == {"config.json", "model.safetensors", "schedule.json", "README.md"}
    average = load_model(checkpoint / "ema").state_dict()
    model, schedule = load_checkpoint_model(target)
    for read in (model, LightningDiT.from_pretrained(target)):
        assert all(torch.equal(tensor, average[name]) for name, tensor in read.state_dict().items())
    assert schedule.hash() == Schedule.offset(("tex", "sem"), "sem", 0.3).hash()
    card = (target / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "lwd"
    for fact in (
        "LightningDiT-Mini/1, 8 steps",
        "tex (4), sem (2)",
        "4 x 4",
        f"`{schedule.hash()}`",
        "a fixed schedule",
    ):
        assert fact in card


def test_what_cannot_be_exported(checkpoint, tmp_path):
    (tmp_path / "there").mkdir()
    for arguments in (
        [checkpoint, tmp_path / "there"],
        [tmp_path, tmp_path / "new"],
        [checkpoint / "ema", tmp_path / "n"],
    ):
        result = CliRunner().invoke(app, ["export", *map(str, arguments)])
        assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert {p.name for p in tmp_path.iterdir()} == {"there", "run"}


def test_a_damaged_checkpoint_is_not_exported(checkpoint, tmp_path):
    file = checkpoint / "ema" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    result = CliRunner().invoke(app, ["export", str(checkpoint), str(tmp_path / "export")])
    assert result.exit_code == 2 and "ema/model.safetensors: damaged" in result.stderr
    (checkpoint / "state.json").write_text("{}")
    result = CliRunner().invoke(app, ["export", str(checkpoint), str(tmp_path / "export")])
    assert result.exit_code == 2 and "not the state of a checkpoint" in result.stderr
    assert not (tmp_path / "export").exists()


def test_a_push_that_fails_leaves_the_folder(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("lwd.stages.train.export.unreachable", lambda: None)
    monkeypatch.setattr(
        "lwd.stages.train.export.HfApi.create_repo", lambda *a, **k: (_ for _ in ()).throw(OSError("offline"))
    )
    arguments = ["export", str(checkpoint), str(tmp_path / "export"), "--push-to", "me/model"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and "me/model: not pushed (offline)" in result.stderr
    assert (tmp_path / "export" / "model.safetensors").is_file()

    monkeypatch.setattr("lwd.stages.train.export.unreachable", lambda: "no network")
    result = CliRunner().invoke(app, [*arguments[:2], str(tmp_path / "again"), *arguments[3:]])
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "me/model: not pushed (no network)" in result.stderr and (tmp_path / "again" / "config.json").is_file()
