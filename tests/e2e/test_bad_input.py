"""Bad input gets one line on stderr, exit code 2, no traceback, and leaves nothing half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lwd.cli.main import main
from lwd.config import load
from lwd.schedules import Schedule
from lwd.stages.experiment import Experiment

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


def test_a_url_where_only_a_path_will_do(lwd: Lwd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Path` makes a folder "s3:" of it. No stage begins, and none leaves one."""
    monkeypatch.chdir(tmp_path)
    stages = ("encode", "semvae", "probe", "sweep", "train", "map", "sample", "score", "report", "check", "plan")
    for stage in stages:
        line = lwd.refuses(stage, "-c", CONFIG, "output=s3://bucket/run")
        assert "output: s3://bucket/run is a URL, where a path of this machine is needed; data.path alone takes" in line
    assert "output: gs://b is a URL" in lwd.refuses("demo", "output=gs://b")
    for key in ("data.cache", "train.init_from", "sample.checkpoint", "encode.dataset", "encode.texture.path"):
        assert f"{key}: https://host/x is a URL" in lwd.refuses("train", "-c", CONFIG, f"{key}=https://host/x")
    assert "s3://bucket/out is a URL" in lwd.refuses("export", "checkpoint", "s3://bucket/out")
    assert not list(tmp_path.iterdir())


def test_missing_files(lwd: Lwd, tmp_path: Path) -> None:
    assert "no such config file" in lwd.refuses("train", "-c", str(tmp_path / "none.yaml"))
    here = f"output={tmp_path / 'run'}"
    assert "lwd encode" in lwd.refuses("probe", "-c", CONFIG, here)
    assert "run lwd sweep first" in lwd.refuses("train", "-c", CONFIG, here)
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
    assert f"{file}: image 7, channel 1 of 'latents_sv'" in message and "not finite" in message
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


@pytest.mark.parametrize(
    "override",
    [
        "train.steps=-5", "train.batch=0", "train.lr=-1", "train.ema_decay=2", "train.label_dropout=5", "model.depth=0",
        "model.num_classes=1000000000000", "model.width=10000000", "model.depth=1000000",
        "train.schedule={kind: offset, delta: -1e9}",
        "train.schedule=power:0.5", "compute.log_every=0", "compute.checkpoint_every=-1", "seed=-1",
        "probe.degree=0", "probe.kinetic_weight=-1", "sample.num=0", "sample.trace_points=0", "sample.atol=-1",
        "sweep.collapsed_below=.nan", "encode.encoder_steps=-3", "compare.seeds=[0, 0]", "groups=[]",
        "groups=[{name: tex, channels: 4}, {name: tex, channels: 2}]",
        "groups=[{name: tex, channels: 4, key: x}, {name: sem, channels: 2, key: x}]",
        "groups=[{name: tex, channels: 4, key: labels}, {name: sem, channels: 2}]",
    ],
)  # fmt: skip
def test_values_out_of_bounds(override: str, lwd: Lwd) -> None:
    assert override.split("=")[0].split(".")[-1] in lwd.refuses("train", "-c", CONFIG, override)


def test_encode_never_replaces_what_it_did_not_write(lwd: Lwd, data: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "train" / "precious.safetensors"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    assert "holds other files" in lwd.refuses("encode", "-c", CONFIG, f"data.path={tmp_path / 'mine'}")
    assert mine.read_text() == "years of work"
    assert "other settings" in lwd.refuses("encode", "-c", CONFIG, f"data.path={data}", "seed=7")


def test_labels_and_features_must_suit_the_training(lwd: Lwd, data: Path, overrides: list[str], tmp_path: Path) -> None:
    options = ["-c", CONFIG, *overrides, "train.schedule.kind=synchronous"]
    message = lwd.refuses("train", *options, "model={name: LightningDiT-Mini/1, num_classes: 9}")
    assert "labels run from 0 to 9" in message and "num_classes=9" in message
    bare = tmp_path / "bare"
    shutil.copytree(data, bare)
    for file in (bare / "train").glob("*.safetensors"):
        save_file({k: v for k, v in load_file(file).items() if not k.startswith("feats")}, file)
    assert "repa_weight=0" in lwd.refuses("train", *options, f"data.path={bare}")
    assert lwd("train", *options, f"data.path={bare}", "train.repa_weight=0", "train.steps=1")[0] == 0


def test_a_refusal_leaves_the_earlier_result_as_it_was(lwd: Lwd, overrides: list[str], tmp_path: Path) -> None:
    options = ["-c", CONFIG, *overrides, "train.schedule.kind=synchronous"]
    assert lwd("train", *options, "train.steps=4")[0] == 0
    run = tmp_path / "run" / "train" / "learned"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    lwd.refuses("train", *options, "train.steps=8", "train.lr=0.5")
    assert "past 2" in lwd.refuses("train", *options, "train.steps=2")
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_sweep_in_which_all_collapse_leaves_no_schedule(lwd: Lwd, overrides: list[str], tmp_path: Path) -> None:
    schedule = tmp_path / "run" / "schedule.json"
    assert lwd("sweep", "-c", CONFIG, *overrides)[0] == 0 and schedule.is_file()
    assert "collapsed" in lwd.refuses(
        "sweep", "-c", CONFIG, *overrides, "sweep.collapsed_below=1", "sweep.mass_above=0"
    )
    assert not schedule.exists()


def test_samples_of_other_data_and_several_processes(
    lwd: Lwd, overrides: list[str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["-c", CONFIG, *overrides, "train.schedule.kind=synchronous", "train.steps=1"]
    assert lwd("train", *options)[0] == 0
    other = tmp_path / "other"
    shutil.copytree(data, other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"fingerprint": "0" * 12}))
    assert "trained on data" in lwd.refuses("sample", *options, f"data.path={other}")
    (other / "manifest.json").write_text("{}")
    assert "not a manifest" in lwd.refuses("sample", *options, f"data.path={other}")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "WORLD_SIZE=2 in the environment, but no RANK" in lwd.refuses("report", "-c", CONFIG)
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    for command in ("report", "demo"):
        assert "one process" in lwd.refuses(command, "-c", CONFIG)


def test_an_output_that_is_a_file(lwd: Lwd, data: Path, overrides: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    options = ["-c", CONFIG, *overrides, f"output={tmp_path / 'file'}"]
    assert str(tmp_path / "file") in lwd.refuses("train", *options, "train.schedule.kind=synchronous")
