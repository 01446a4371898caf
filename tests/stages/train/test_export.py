"""An exported checkpoint: loadable, with its schedule, and a card that says what it is."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from lwd.cli.main import app
from lwd.data.remote.mirror import mirror
from lwd.encoders.decoder import carry, check_data
from lwd.errors import UserError
from lwd.files import read_json, write_json
from lwd.groups import Group, Layout
from lwd.models import LightningDiT, load_model
from lwd.models.pretrained import load_checkpoint_model
from lwd.schedules import Schedule
from lwd.stages import sample, train
from lwd.stages.sample.released import released
from lwd.stages.train.export import export


@pytest.fixture
def checkpoint(experiment):
    offset = experiment.train.schedule.model_copy(update={"kind": "offset"})
    return train.run(experiment.model_copy(update={"train": experiment.train.model_copy(update={"schedule": offset})}))


def test_export(checkpoint, tmp_path):
    target = tmp_path / "export"
    result = CliRunner().invoke(app, ["export", str(checkpoint), str(target)])
    assert result.exit_code == 0 and "the average after 8 steps" in result.output
    assert {p.name for p in target.iterdir()} == {
        *("config.json", "model.safetensors", "schedule.json", "README.md", "config.yaml", "data")
    }
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


def test_what_the_card_says_runs_as_written(checkpoint, experiment, data, tmp_path, monkeypatch):
    """In an empty folder, without the encoded data: latents, the same images as beside the data, and a pipeline."""
    result = CliRunner().invoke(app, ["export", str(checkpoint), str(tmp_path / "FOLDER"), "--data", str(data)])
    assert result.output.strip().endswith("statistics and decoder (identity)")
    assert sorted(p.name for p in (tmp_path / "FOLDER" / "data").rglob("*.*")) == [
        *("latents_stats.pt", "latents_sv_stats.pt", "manifest.json")
    ]
    assert str(data) not in "".join(p.read_text() for p in (tmp_path / "FOLDER").rglob("*.[jmy]*[!s]") if p.is_file())
    card = (tmp_path / "FOLDER" / "README.md").read_text()
    monkeypatch.chdir(tmp_path)
    first, second = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    generated, drawn = {}, {}
    exec(first, generated)
    assert generated["samples"].latents.shape == (2, 6, 4, 4)
    exec(second, drawn)
    assert len(drawn["images"]) == 8 and drawn["images"][0].size == (8, 8)

    (command,) = re.findall(r"```bash\nlwd (.*)\n```", card)
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == 0, result.output
    with np.load("runs/FOLDER/samples/FOLDER/images.npz") as alone:
        assert alone["arr_0"].shape == (16, 8, 8, 3)
        beside = experiment.sample.model_copy(update={"checkpoint": checkpoint, "num": 6, "block": 6, "name": "b"})
        folder = sample.run(experiment.model_copy(update={"sample": beside, "output": tmp_path}))
        with np.load(folder / "images.npz") as images:
            # A batch of 6 and one of 16 round differently, and a grey level of 255 is where that can show.
            assert np.abs(alone["arr_0"][:6].astype(int) - images["arr_0"]).max() <= 1


def test_a_released_folder_decides_no_code_and_fits_its_own_data_only(checkpoint, experiment, data, tmp_path):
    target = tmp_path / "export"
    export(checkpoint, target, data)
    with pytest.raises(UserError, match=r"trained on data .*, .* is another"):
        write_json(tmp_path / "other" / "manifest.json", read_json(data / "manifest.json") | {"fingerprint": "another"})
        export(checkpoint, tmp_path / "second", tmp_path / "other")
    with pytest.raises(UserError, match=r"trained on data .*, .* is another"):
        check_data(target, tmp_path / "other")
    with pytest.raises(
        UserError, match=r"nowhere: no such folder; --data is the folder that `lwd encode` wrote, or its URL"
    ):
        export(checkpoint, tmp_path / "second", tmp_path / "nowhere")
    written = (target / "config.yaml").read_text()
    for changed in (f"{written}imports: [antigravity]\n", written.replace("{num_classes: 10}", "5")):
        (target / "config.yaml").write_text(changed)
        with pytest.raises(UserError, match=r"config.yaml: not as `lwd export` writes it"):
            released(target)
    with pytest.raises(UserError, match="not a folder of `lwd export` that carries a decoder"):
        released(checkpoint)


def test_a_released_folder_may_have_any_name(checkpoint, data, tmp_path, monkeypatch):
    """As a download's: `sample.name` is a valid one near it, and what was made lies below that."""
    target = tmp_path / "my model (1), v2: [é]"
    export(checkpoint, target, data)
    monkeypatch.chdir(target)
    for folder in (target, Path(), Path("data/..")):
        assert released(folder)["sample"]["name"] == "my model -1-- v2- -é-"
    monkeypatch.chdir(tmp_path)
    options = ["sample", "-c", target.name, "--num", "2", "sample.steps=1", "sample.solver=euler"]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "runs/my model -1-- v2- -é-/samples/my model -1-- v2- -é-/samples.json").is_file()


def test_what_cannot_be_exported(checkpoint, tmp_path):
    (tmp_path / "there").mkdir()
    for arguments, said in (
        ([checkpoint, tmp_path / "there"], "exists"),
        ([tmp_path, tmp_path / "new"], "no checkpoint of lwd"),
        ([tmp_path / "none", tmp_path / "new"], "no checkpoint of lwd"),
        ([checkpoint / "ema", tmp_path / "n"], "without schedule.json"),
    ):
        result = CliRunner().invoke(app, ["export", *map(str, arguments)])
        assert result.exit_code == 2 and result.stderr.count("\n") == 1
        assert said in result.stderr and "to go on from" not in result.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"there", "run"}


@pytest.mark.parametrize("wrong", ["data: [1]", "data: {path: 5}", "output: [1]"])
def test_a_run_whose_config_is_none_is_exported_without_decoder(checkpoint, tmp_path, wrong):
    (checkpoint.parent / "config.yaml").write_text(wrong)
    assert "no decoder: its data " in export(checkpoint, tmp_path / "export")


def test_data_at_a_url_is_found_where_the_run_found_it(experiment, data, tmp_path):
    """And at the URL that is given; where nothing is any more, the line says of the URL what is wrong."""
    there, schedule = tmp_path / "there", experiment.train.schedule.model_copy(update={"kind": "offset"})
    shutil.copytree(data, there)
    url = {"path": f"file://{there}", "cache": tmp_path / "cache"}
    settings = experiment.train.model_copy(update={"schedule": schedule})
    config = experiment.model_copy(update={"data": experiment.data.model_copy(update=url), "train": settings})
    checkpoint = train.run(config)
    for name, asked in (("found", []), ("given", ["--data", f"file://{there}"])):
        result = CliRunner().invoke(app, ["export", str(checkpoint), str(tmp_path / name), *asked])
        assert result.output.strip().endswith("statistics and decoder (identity)"), result.output
        stats = "data/train/latents_stats.pt"
        assert (tmp_path / name / stats).read_bytes() == (data / "train" / "latents_stats.pt").read_bytes()
    shutil.rmtree(there)
    mirror.cache_clear()
    said = export(checkpoint, tmp_path / "without")
    assert f"no decoder: its data cannot be read (file://{there}: no files.json" in said


def test_a_vae_that_is_no_longer_there_is_not_named(data, tmp_path):
    manifest, layout = read_json(data / "manifest.json"), Layout([Group("tex", 4), Group("sem", 2)])
    shutil.copytree(data, tmp_path / "data")
    for path in (str(tmp_path / "secret" / "vae"), "./vae", "models/vae.ckpt"):
        texture = {"group": "tex", "encoder": "sd-vae-f16d32", "path": path}
        write_json(tmp_path / "data" / "manifest.json", manifest | {"texture": texture})
        with pytest.raises(UserError, match=f"sd-vae-f16d32 was at {path}, where there is nothing now"):
            carry(tmp_path / "data", layout, tmp_path / "carried")


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
