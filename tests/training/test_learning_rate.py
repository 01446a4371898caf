"""The learning rate by step: PyTorch's schedulers, the log, and a run that was killed on the way."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers

from lwd.config import load, parse
from lwd.errors import UserError
from lwd.runtime.checkpoint import checkpoint_path, read_state
from lwd.stages import train
from lwd.stages.experiment import Experiment
from lwd.stages.train.run import TrainTask
from lwd.stages.train.settings import TrainSettings
from lwd.training.logging import read_log
from lwd.training.optim import lr_factor
from traces import per_step

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"
STEPS = 8
DECAY = ["train.lr=1e-3", "train.lr_schedule=cosine", "train.warmup_steps=3", "train.lr_final=1e-4"]


class KilledError(Exception):
    pass


def reference(schedule, optimizer, steps, warmup, final):
    """PyTorch's, at a rate of 1: LinearLR goes 1/w, 2/w, ..., 1 in w - 1 steps, then the other one takes over."""
    then = {
        "constant": lambda: schedulers.ConstantLR(optimizer, factor=1.0),
        "cosine": lambda: schedulers.CosineAnnealingLR(optimizer, T_max=steps - warmup, eta_min=final),
        "linear": lambda: schedulers.LinearLR(optimizer, 1.0, final, total_iters=steps - warmup),
    }[schedule]()
    if not warmup:
        return then
    rising = schedulers.LinearLR(optimizer, start_factor=1 / warmup, total_iters=max(1, warmup - 1))
    return schedulers.SequentialLR(optimizer, [rising, then], milestones=[warmup])


@pytest.mark.parametrize(("steps", "warmup"), [(40, 10), (25, 0), (7, 6), (5, 1)])
@pytest.mark.parametrize(("schedule", "final"), [("constant", 0.0), ("cosine", 0.0), ("cosine", 0.25), ("linear", 0.1)])
@pytest.mark.filterwarnings("ignore:The epoch parameter")  # SequentialLR's own use of it
def test_the_rate_is_pytorchs_schedule_at_every_step(schedule, final, steps, warmup):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
    scheduler = reference(schedule, optimizer, steps, warmup, final)
    for step in range(steps):
        # 1e-12: PyTorch's is a product of steps' ratios, ours a formula; each ratio rounds at 1e-16.
        expected = optimizer.param_groups[0]["lr"]
        assert lr_factor(step, steps, warmup, schedule, final) == pytest.approx(expected, abs=1e-12), step
        optimizer.step()
        scheduler.step()
    assert lr_factor(steps, steps, warmup, schedule, final) == pytest.approx(1 if schedule == "constant" else final)


def test_the_default_is_the_constant_rate_to_the_bit_and_no_part_of_the_recipe():
    settings = TrainSettings(lr=3e-4, steps=7)
    assert [settings.lr_at(step) for step in range(7)] == [3e-4] * 7 and not settings.lr_changes
    assert not {"warmup_steps", "lr_schedule", "lr_final", "steps"} & settings.recipe().keys()
    assert "steps" not in TrainSettings(warmup_steps=5).recipe(), "a constant rate may go on for longer"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr_final": 1e-5}, "lr_final 1e-05 is of a rate that falls: set lr_schedule=cosine or linear"),
        ({"lr_schedule": "linear", "lr_final": 1e-3}, "lr_final 0.001 must be at most lr = 0.0001"),
        ({"lr_schedule": "cosine", "steps": 5, "warmup_steps": 5}, "warmup_steps 5 must be under steps = 5"),
        ({"lr_schedule": "step"}, "lr_schedule"),
    ],
)
def test_settings_that_do_not_fit(settings, words):
    with pytest.raises(UserError, match=words):
        parse(TrainSettings, settings, "train")


@pytest.fixture
def config(overrides):
    settings = [*overrides, "train.schedule=synchronous", *DECAY]
    return lambda output, *more: load(Experiment, DIGITS, [*settings, f"output={output}", *more])


def test_a_killed_run_goes_on_with_the_same_rates_and_logs_them(config, tmp_path, monkeypatch):
    keep = ("compute.checkpoint_every=4", "compute.log_every=1")
    train.run(config(tmp_path / "whole", *keep))
    original, rates = TrainTask.after_step, []

    def killing(self, step):
        rates.append(self.optimizer.param_groups[0]["lr"])
        if step == 6 and len(rates) == 6:
            raise KilledError
        return original(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(TrainTask, "after_step", killing)
        with pytest.raises(KilledError):
            train.run(config(tmp_path / "halves", *keep))
        train.run(config(tmp_path / "halves", *keep))
    expected = [1e-3 * lr_factor(step, STEPS, 3, "cosine", 0.1) for step in range(STEPS)]
    assert rates == pytest.approx(expected[:6] + expected[4:], rel=1e-15)
    logs = [read_log(tmp_path / name / "train/learned/trace.jsonl") for name in ("whole", "halves")]
    assert per_step(logs[0]) == per_step(logs[1])
    # 1e-7: the log's numbers are float32
    assert [line["lr"] for line in logs[0]] == pytest.approx(expected, rel=1e-7)
    one, other = (checkpoint_path(tmp_path / name / "train/learned", STEPS) for name in ("whole", "halves"))
    assert read_state(one).sha256 == read_state(other).sha256


def test_another_schedule_or_length_is_refused(config, tmp_path):
    train.run(config(tmp_path / "run"))
    for change, words in [
        ("train.steps=16", r"train\.steps was 8, now 16"),  # the cosine would be another
        ("train.lr_schedule=linear", r"train\.lr_schedule was 'cosine', now 'linear'"),
        ("train.warmup_steps=2", r"train\.warmup_steps was 3, now 2"),
    ]:
        with pytest.raises(UserError, match=words):
            train.run(config(tmp_path / "run", change))
