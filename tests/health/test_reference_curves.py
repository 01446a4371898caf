"""The losses of runs that went well: which runs they belong to, and how `lwd watch` draws them."""

import json
import math
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from lwd.config import dump, load, read_yaml
from lwd.files import read_json
from lwd.health.reference import CURVES, MATCHING, reference_for, signature
from lwd.stages.experiment import Experiment
from lwd.stages.watch import watch

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"
MINI = ("model={name: LightningDiT-Mini/1, num_classes: 10}", "train.schedule=synchronous")


def config_of(folder, *overrides):
    """The config.yaml of a run, read as `lwd watch` reads it."""
    (folder / "config.yaml").write_text(dump(load(Experiment, DIGITS, overrides)))
    return read_yaml(folder / "config.yaml")


def test_runs_of_the_same_network_data_and_objective_match(tmp_path):
    assert reference_for(config_of(tmp_path, *MINI)).name == "LightningDiT-Mini/1 on the digits"
    name = "LightningDiT-Ti/1 of depth 3 on the digits"
    assert reference_for(config_of(tmp_path, "train.schedule=synchronous")).name == name
    demo = load(Experiment, DIGITS).variant("synchronous")  # whose rate falls over its 2 000 steps
    of_demo = load(Experiment, DIGITS).model_copy(update={"train": demo}).model_dump(mode="json")
    assert reference_for(of_demo).name == f"{name}, as in lwd demo"
    of_demo["train"]["steps"] = 1000
    assert reference_for(of_demo) is None
    assert reference_for(config_of(tmp_path, *MINI, "train.steps=99", "seed=5", "output=x", "compute.log_every=7"))


@pytest.mark.parametrize(
    "other",
    [
        "train.batch=32", "train.schedule=offset:0.3", "train.lr=2.0e-3", "train.cosine_weight=0", "data.flip=true",
        "model.depth=3", "groups=[{name: tex, channels: 4}, {name: sem, channels: 2}]", "encode.dataset=fashion-mnist",
        "train.times={kind: independent}", "encode.encoder_steps=20",
    ],
)  # fmt: skip
def test_others_do_not(tmp_path, other):
    assert reference_for(config_of(tmp_path, *MINI, other)) is None


def test_odd_configs_match_nothing():
    for config in ({}, {"train": 3, "groups": "x"}, {"train": {"schedule": "synchronous"}}):
        assert reference_for(config) is None


def test_the_curves_are_whole_and_say_how_they_were_made():
    config = load(Experiment, DIGITS, MINI).model_dump(mode="json")
    for curve in read_json(CURVES)["curves"]:
        steps = len(curve["loss"]) * curve["every"]
        assert steps >= 200 and all(map(math.isfinite, curve["loss"]))
        assert f"(seed 0, {format(steps, ',').replace(',', ' ')} steps, " in curve["made"]
        assert "-c configs/digits.yaml" in curve["made"]
        assert curve["match"].keys() == signature(config).keys()
        assert curve["loss"][0] > 3 > 1.2 > curve["loss"][-1]
    for section, keys in MATCHING.items():
        assert set(keys) <= set(config[section] if section else config)


def test_a_run_becomes_one_of_them(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(DIGITS.parents[1] / "experiments"))
    from reference_curve import main

    shutil.copyfile(CURVES, tmp_path / "curves.json")
    config = config_of(tmp_path, *MINI, "train.batch=32")
    (tmp_path / "trace.jsonl").write_text("".join(f'{{"step": {n}, "loss": {n}.0}}\n' for n in range(6)))
    arguments = [str(tmp_path), "--name", "x", "--made", "y", "--curves", str(tmp_path / "curves.json"), "--every"]
    assert main([*arguments, "4"]) == 2 and "6 steps in the log" in capsys.readouterr().err
    assert main([*arguments, "3"]) == main([*arguments, "3"]) == 0
    *others, new = read_json(tmp_path / "curves.json")["curves"]
    assert others == read_json(CURVES)["curves"]
    assert (new["name"], new["every"], new["loss"], new["match"]) == ("x", 3, [1.0, 4.0], signature(config))


def test_means_over_steps():
    curve = reference_for(load(Experiment, DIGITS, MINI).model_dump(mode="json"))
    assert curve.mean(0, 20) == curve.loss[0] and curve.mean(5, 6) == curve.loss[0]
    assert curve.mean(20, 60) == pytest.approx(sum(curve.loss[1:3]) / 2)
    assert curve.mean(1990, 2010) == curve.loss[-1] and curve.mean(2000, 2020) is None


def test_it_is_drawn_behind_a_run_on_one_scale(tmp_path):
    config_of(tmp_path, *MINI)
    curve = reference_for(read_yaml(tmp_path / "config.yaml"))
    lines = [{"step": n, "loss": curve.loss[n // 20] + 1, "flow": 1.0} for n in range(200)]
    (tmp_path / "trace.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    console = Console(width=120, record=True)
    watch(tmp_path, once=True, console=console)
    loss, like = (
        line for line in console.export_text().splitlines() if "loss  ▁" in line or "like  " in line or "█" in line
    )
    assert "LightningDiT-Mini/1 on the digits, about 1." in like
    assert "█" in loss and "█" not in like and "▁" in like and "▁" not in loss  # one higher all along


def test_other_runs_have_no_such_line(tmp_path):
    config_of(tmp_path, *MINI, "train.batch=32")
    (tmp_path / "trace.jsonl").write_text('{"step": 0, "loss": 2.0, "flow": 1.0}\n')
    console = Console(width=120, record=True)
    watch(tmp_path, once=True, console=console)
    assert "like" not in console.export_text()
