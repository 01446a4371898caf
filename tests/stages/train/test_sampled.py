"""`train.evaluate_every`: the figures of `lwd sample` and `lwd evaluate` during training, which they leave alone."""

import os
import shutil
from unittest.mock import patch

import pytest
from typer.testing import CliRunner

from lwd.cli.main import app
from lwd.data.encoded import MANIFEST
from lwd.errors import UserError
from lwd.files import checksum, read_json, write_json
from lwd.runtime.preemption import TimeLimit
from lwd.stages import evaluate, sample, train
from lwd.stages.evaluate import EvaluateSettings
from lwd.stages.train.run import check, look
from lwd.stages.train.sampled import JudgeExtractor, Sampled, decode_rgb
from lwd.stages.train.sampled_settings import SampledSettings
from lwd.training.logging import read_log
from ranks import in_two_processes

KEYS = ("sampled_frechet", "sampled_accuracy")
DRAWN = {"samples": 70, "batch": 20, "steps": 3, "solver": "heun", "seed": 5}


def training(experiment, folder, **changes):
    schedule = experiment.train.schedule.model_copy(update={"kind": "offset"})
    settings = experiment.train.model_copy(update={"schedule": schedule, **changes})
    return experiment.model_copy(update={"output": folder, "train": settings})


def measured(folder):
    """(step, distance, accuracy) of each line that has them."""
    lines = read_log(folder / "trace.jsonl")
    return [(line["step"], *(line[key] for key in KEYS)) for line in lines if KEYS[0] in line]


@pytest.fixture
def config(experiment, tmp_path):
    return training(experiment, tmp_path, evaluate_every=3, evaluate=SampledSettings(**DRAWN))


def test_the_figures_are_those_of_the_commands_and_the_weights_those_without(experiment, tmp_path, config):
    plain = train.run(training(experiment, tmp_path / "plain"))
    last = train.run(config)
    for name in ("model/model.safetensors", "ema/model.safetensors", "optimizer.safetensors"):
        assert checksum(plain / name) == checksum(last / name)
    (*_, (step, distance, accuracy)) = found = measured(last.parent)
    assert [line[0] for line in found] == [2, 5, 7] and step == 7
    drawn = {"checkpoint": last, "num": 70, "batch": 20, "block": 40, "steps": 3, "solver": "heun", "seed": 5}
    one = config.model_copy(update={"sample": experiment.sample.model_copy(update=drawn)})
    folder = sample.run(one)
    settings = EvaluateSettings(samples=folder, metrics=("frechet", "accuracy"), bootstrap=0, counts=0)
    record = evaluate.run(one.model_copy(update={"evaluate": settings}))
    assert distance == pytest.approx(record.metrics["frechet"], rel=1e-6)  # a log holds float32
    assert accuracy == pytest.approx(record.metrics["accuracy"], rel=1e-6) and distance > 0
    shown = CliRunner().invoke(app, ["watch", str(last.parent), "--once"]).stdout
    assert "sampled frechet" in shown and "sampled accuracy" in shown


def test_a_run_that_was_cut_and_gone_on_with_measures_the_same(experiment, tmp_path, config, monkeypatch):
    train.run(config)
    cut = config.model_copy(
        update={"output": tmp_path / "cut", "compute": config.compute.model_copy(update={"time_limit": 1.0})}
    )
    asked = iter([0.0] * 4 + [2.0] * 100)  # up after five steps
    with monkeypatch.context() as clock, pytest.raises(Exception, match="saved after step 5"):
        clock.setattr("lwd.runtime.processes.TimeLimit", lambda s: TimeLimit(s, lambda: next(asked)))
        train.run(cut)
    train.run(cut.model_copy(update={"compute": config.compute}))
    assert measured(tmp_path / "cut" / "train" / "learned") == measured(tmp_path / "train" / "learned")


def _train(config):
    train.run(config)


def test_the_number_of_processes_changes_nothing(tmp_path, config):
    frozen = {"lr": 1e-30, "ema_decay": 1.0}  # else the weights differ in their last digits
    config = config.model_copy(update={"train": config.train.model_copy(update=frozen)})
    one = config.model_copy(update={"output": tmp_path / "one"})
    train.run(one)
    in_two_processes(tmp_path / "said", _train, config)
    found = [measured(folder / "train" / "learned") for folder in (tmp_path / "one", tmp_path)]
    assert found[0] == [(step, *(pytest.approx(x, rel=1e-6) for x in rest)) for step, *rest in found[1]]


def _train_failing(config):
    """The other process alone fails: at the first measurement in decoding, at the second in what sees the images."""
    if os.environ["RANK"] == "1":
        see, begun = JudgeExtractor.__call__, Sampled.measure
        state = {"measured": 0}

        def measure(self, average):
            state["measured"] += 1
            return begun(self, average)

        def failing(when, function):
            def called(*arguments):
                if state["measured"] == when:
                    raise RuntimeError(f"out of memory at {when}")
                return function(*arguments)

            return called

        Sampled.measure, JudgeExtractor.__call__ = measure, failing(2, see)
        patch("lwd.stages.train.sampled.decode_rgb", failing(1, decode_rgb)).start()
    train.run(config)


def test_what_fails_on_one_process_is_left_out_by_all(tmp_path, config):
    said = in_two_processes(tmp_path / "said", _train_failing, config)
    assert [step for step, *_ in measured(tmp_path / "train" / "learned")] == [7]
    lines = [line for line in said.splitlines() if "evaluate_every" in line]
    assert lines == [
        f"lwd: train.evaluate_every: not measured (RuntimeError: out of memory at {when}); the run goes on"
        for when in (1, 2)
    ]


def test_samples_that_are_not_finite_are_left_out_and_said_to_be(tmp_path, config, monkeypatch, capfd):
    def diverged(*arguments, **options):
        raise UserError("sample 3: not finite")

    monkeypatch.setattr("lwd.stages.train.sampled.generate", diverged)
    last = train.run(config)
    assert measured(last.parent) == []
    assert "train.evaluate_every: not measured (sample 3: not finite); the run goes on" in capfd.readouterr().err


def no_classifier(data):
    manifest = read_json(data / MANIFEST)
    write_json(data / MANIFEST, manifest | {"judge": None})


def no_manifest(data):
    (data / MANIFEST).unlink()


def no_heldout(data):
    shutil.rmtree(data / "heldout")


@pytest.mark.parametrize(
    ("spoil", "changes", "words"),
    [
        (no_classifier, {}, "encoded without a classifier"),
        (no_manifest, {}, f"has no {MANIFEST}, so nothing decodes samples"),
        (no_heldout, {}, "heldout: "),
        (None, {"features": "dinov2"}, "set train.evaluate.dinov2=FOLDER"),
        (None, {"features": "inception", "weights": "none.pth"}, "none.pth"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(tmp_path, config, spoil, changes, words):
    data = tmp_path / "data"
    shutil.copytree(config.data_path, data)
    if spoil is not None:
        spoil(data)
    settings = config.train.model_copy(update={"evaluate": SampledSettings(**DRAWN, **changes)})
    spoilt = config.model_copy(update={"data": config.data.model_copy(update={"path": data}), "train": settings})
    for refuse in (check, look, train.run):
        with pytest.raises(UserError, match=words):
            refuse(spoilt)
    assert not (tmp_path / "train").exists()


@pytest.mark.parametrize(
    ("features", "words"),
    [("dinov2", r"set train\.evaluate\.dinov2=FOLDER"), ("inception", r"name a file .* train\.evaluate\.weights=FILE")],
)
def test_networks_of_others_are_looked_for_before_there_is_data(tmp_path, config, features, words, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    settings = config.train.model_copy(update={"evaluate": SampledSettings(**DRAWN, features=features)})
    data = config.data.model_copy(update={"path": tmp_path / "none"})
    with pytest.raises(UserError, match=words):
        check(config.model_copy(update={"data": data, "train": settings}))
    check(config.model_copy(update={"data": data}))


def test_a_divided_network_is_sampled_by_each_process_alone(tmp_path, config):
    """Three batches on two processes, which in step with each other would wait for ever: the figures of one process,
    for frozen weights (else they differ in their last digits)."""
    settings = {"lr": 1e-30, "ema_decay": 1.0, "evaluate": SampledSettings(**DRAWN | {"batch": 30, "steps": 1})}
    config = config.model_copy(update={"train": config.train.model_copy(update=settings)})
    train.run(config.model_copy(update={"output": tmp_path / "one"}))
    compute = config.compute.model_copy(update={"shard": True})
    in_two_processes(tmp_path / "said", _train, config.model_copy(update={"compute": compute}))
    found = [measured(folder / "train" / "learned") for folder in (tmp_path / "one", tmp_path)]
    assert found[0] == [(step, *(pytest.approx(x, rel=1e-5) for x in rest)) for step, *rest in found[1]]


def test_a_torch_that_cannot_gather_is_refused(config, monkeypatch):
    monkeypatch.delattr("torch.distributed.fsdp.FSDPModule.set_reshard_after_forward")
    compute = config.compute.model_copy(update={"shard": True})
    with pytest.raises(UserError, match=r"cannot gather a divided network .*evaluate_every or compute\.shard"):
        check(config.model_copy(update={"compute": compute}))


def test_one_heldout_image_is_too_few(config, monkeypatch):
    shards = type(config.shards("heldout", features=False))
    monkeypatch.setattr(shards, "__len__", lambda self: 1)
    with pytest.raises(UserError, match="holds 1 image; a distribution needs at least 2"):
        check(config)


def test_the_settings_do_not_decide_the_result(config):
    assert "evaluate" not in config.train.recipe() and "evaluate_every" not in config.train.recipe()
