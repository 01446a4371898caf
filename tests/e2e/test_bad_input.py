"""Bad input gets one line on stderr, exit code 2, no traceback, and leaves nothing half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lwd.cli import main
from lwd.config import load
from lwd.experiment import Experiment
from lwd.schedules import Schedule

CONFIG = str(Path(__file__).parents[2] / "configs" / "digits.yaml")


class Lwd:
    """Runs a command in this process and keeps what it printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._patch.setattr("sys.argv", ["lwd", *arguments])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = self._capsys.readouterr()
        code = exit_.value.code
        return (0 if code is None else int(code)), out, err

    def refuses(self, *arguments: str) -> str:
        """The one line that the command prints before it exits with code 2."""
        code, _, err = self(*arguments)
        assert code == 2, err
        assert err.startswith("lwd: ") and err.count("\n") == 1, err
        return err


@pytest.fixture
def lwd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lwd:
    return Lwd(monkeypatch, capsys)


def test_unknown_keys_name_the_nearest(lwd: Lwd) -> None:
    assert "unknown key 'probe.kinetic_wieght'; did you mean 'kinetic_weight'?" in lwd.refuses(
        "probe", "-c", CONFIG, "probe.kinetic_wieght=1"
    )
    assert "did you mean 'train'?" in lwd.refuses("train", "-c", CONFIG, "trian.steps=1")
    assert "compare.variants.a: unknown key 'stepps'; did you mean 'steps'?" in lwd.refuses(
        "train", "-c", CONFIG, "compare.variants={a: {stepps: 3}}"
    )


def test_wrong_types_say_where(lwd: Lwd) -> None:
    assert "train.steps" in lwd.refuses("train", "-c", CONFIG, "train.steps=many")
    assert "leader" in lwd.refuses("train", "-c", CONFIG, "leader=dino")
    assert "burn_in" in lwd.refuses("probe", "-c", CONFIG, "probe.burn_in=5000")
    assert "did you mean 'LightningDiT-XL/1'" in lwd.refuses("probe", "-c", CONFIG, "model.name=LightningDiT-XXL/1")


def test_missing_files(lwd: Lwd, tmp_path: Path) -> None:
    assert "no such config file" in lwd.refuses("train", "-c", str(tmp_path / "none.yaml"))
    here = f"output={tmp_path / 'run'}"
    assert "lwd encode" in lwd.refuses("probe", "-c", CONFIG, here)
    assert "no such file" in lwd.refuses("train", "-c", CONFIG, here)
    assert "train first" in lwd.refuses("sample", "-c", CONFIG, here)
    assert not (tmp_path / "run").exists()


def test_damaged_shards(lwd: Lwd, data: Path, overrides: list[str], tmp_path: Path) -> None:
    broken = tmp_path / "data"
    shutil.copytree(data, broken)
    file = next((broken / "train").glob("*.safetensors"))
    tensors = load_file(file)
    options = ["-c", CONFIG, *overrides, f"data.path={broken}"]

    without = {key: value for key, value in tensors.items() if key != "latents_sv"}
    save_file(without, file)
    assert f"{file}: missing key 'latents_sv'" in lwd.refuses("probe", *options)

    latents = tensors["latents_sv"].clone()
    latents[7, 1] = torch.nan
    save_file(tensors | {"latents_sv": latents}, file)
    message = lwd.refuses("probe", *options, "probe={steps: 100, burn_in: 1, batch: 64}")
    assert f"{file}: image 7, channel 5" in message and "not finite" in message
    assert not (tmp_path / "run" / "probe" / "schedule.json").exists()

    file.write_bytes(file.read_bytes()[:1000])
    assert "not a readable safetensors file" in lwd.refuses("probe", *options)


def test_a_schedule_of_other_groups(lwd: Lwd, overrides: list[str], tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    Schedule.synchronous(["texture", "semantic"]).save(path)
    message = lwd.refuses("train", "-c", CONFIG, *overrides, f"train.schedule.path={path}")
    assert "['texture', 'semantic']" in message and "['tex', 'sem']" in message
    path.write_text(json.dumps({"format": "other"}))
    assert "not a schedule file" in lwd.refuses("train", "-c", CONFIG, *overrides, f"train.schedule.path={path}")


def test_a_checkpoint_of_another_config_or_model(lwd: Lwd, overrides: list[str]) -> None:
    options = ["-c", CONFIG, *overrides, "train.schedule.kind=synchronous", "train.steps=2"]
    assert lwd("train", *options)[0] == 0
    assert "model.name was 'LightningDiT-Mini/1', now 'LightningDiT-Ti/1'" in lwd.refuses(
        "train", *options, "model.name=LightningDiT-Ti/1", "train.steps=4"
    )


def test_dry_run_prints_a_config_that_reads_back(lwd: Lwd, tmp_path: Path) -> None:
    code, out, _ = lwd("train", "-c", CONFIG, "train.lr=3e-4", "--dry-run")
    assert code == 0
    path = tmp_path / "resolved.yaml"
    path.write_text(out)
    assert load(Experiment, path) == load(Experiment, Path(CONFIG), ["train.lr=3e-4"])


def test_no_command_teaches(lwd: Lwd) -> None:
    _, out, err = lwd("--help")
    assert all(stage in out + err for stage in ("encode", "sweep", "train", "sample", "evaluate", "demo"))
