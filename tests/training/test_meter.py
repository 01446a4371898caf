"""What a run is watched by: the numbers against a clock and gradients made by hand, and training left untouched."""

import io
import mmap
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import Dataset

from lwd.data import StepBatches
from lwd.flow import component_losses
from lwd.groups import Group, Layout
from lwd.models import load_model, training_flops
from lwd.runtime import progress
from lwd.runtime.compute import ComputeConfig
from lwd.runtime.processes import Processes
from lwd.runtime.seeding import Stream, seeded
from lwd.stages import train
from lwd.stages.train import choose_schedule
from lwd.stages.train.run import DenoiserObjective
from lwd.training import meter
from lwd.training.ema import EMA
from lwd.training.logging import MetricLog, read_log
from lwd.training.loop import fit as training_loop
from lwd.training.meter import Meter, Work, by_local_time, memory_bytes, summary
from lwd.training.optim import adamw
from lwd.training.task import Task

CPU = torch.device("cpu")


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(meter, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def slow(self, items, seconds):
        for item in items:
            self.now += seconds
            yield item


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr("lwd.training.loop.read_ahead", map)  # one clock cannot tell two threads apart
    return Clock(monkeypatch)


def log_in(folder):
    return MetricLog(folder / "trace.jsonl", lambda tensor: tensor, write=True)


def test_speed_and_wait_of_each_block(clock, tmp_path):
    """A batch takes 1 s to come; a step takes 3 s; the first block's 2 steps take 8 s, the second's 9 s."""
    watched = Meter(log_in(tmp_path), CPU, lambda t: t, 2, Work(images=32, flops=10**12))
    clock.now += 1000  # what came before the first batch is no part of it
    for step, _ in enumerate(watched.loading(clock.slow(range(4), 1.0))):
        clock.now += 3.0
        watched.add(step, {"loss": torch.tensor(float(step))})
        if step % 2:
            watched.flush()
            clock.now += 1.0  # a checkpoint, say: the next block's time
    first, second = (line for line in read_log(tmp_path / "trace.jsonl") if "images_per_s" in line)
    assert [line["step"] for line in (first, second)] == [1, 3]
    assert first["images_per_s"] == 64 / 8 and second["images_per_s"] == pytest.approx(64 / 9, rel=1e-6)  # float32
    assert first["tflops"] == 64 / 8 / 2  # of one of the two processes
    assert first["data_wait"] == 2 / 8 and second["data_wait"] == pytest.approx(2 / 9, rel=1e-6)


def test_a_block_is_averaged_over_processes_in_one_go(clock, tmp_path):
    shapes = []

    def halve(tensor):
        shapes.append(tuple(tensor.shape))
        return tensor / 2

    watched = Meter(log_in(tmp_path), CPU, halve, 2, Work(8), at_block=lambda: {"ema_drift": torch.tensor(0.5)})
    for step, _ in enumerate(watched.loading(clock.slow(range(1), 1.0))):
        clock.now += 1.0
        watched.add(step, {"loss": torch.tensor(1.0)})
    line = watched.flush()
    assert shapes == [(4,)]
    assert line["data_wait"] == 0.25 and line["images_per_s"] == 2.0 and line["ema_drift"] == 0.25
    assert "tflops" not in line  # operations were not counted


def test_an_empty_block_is_none(clock, tmp_path):
    watched = Meter(log_in(tmp_path), CPU, lambda t: t, work=Work(8))
    assert watched.flush() == {}
    assert (tmp_path / "trace.jsonl").read_text() == ""


def test_memory_is_what_the_process_holds():
    before = memory_bytes(CPU)
    held = mmap.mmap(-1, 2**28)  # pages of its own, not what the allocator kept
    for page in range(0, len(held), mmap.PAGESIZE):
        held[page] = 1
    # other pages come and go meanwhile
    assert memory_bytes(CPU) - before == pytest.approx(len(held), rel=0.2)


def test_losses_by_local_time_are_unweighted_and_by_group():
    layout = Layout([Group("a", 1, weight=5.0), Group("b", 2, weight=7.0)])
    u = torch.zeros(2, 3, 2, 2)
    v = torch.tensor([1.0, 2.0, 2.0]).view(1, 3, 1, 1).expand(2, 3, 2, 2)
    times = torch.tensor([[0.1, 0.5], [0.9, 0.5]])
    pools = by_local_time(component_losses(v, u, layout), times, layout)
    assert [pools["loss_by_time_a"].sums.tolist(), pools["loss_by_time_a"].counts.tolist()] == [[1, 0, 0, 0, 1]] * 2
    assert pools["loss_by_time_b"].sums.tolist() == [0, 0, 8, 0, 0]
    assert pools["loss_by_time_b"].counts.tolist() == [0, 0, 2, 0, 0]


# in the training loop


class Numbers(NamedTuple):
    x: Tensor


class Slow(Dataset):
    """Batch ``step`` is the number ``step`` + 1, and takes 3 s."""

    def __init__(self, clock):
        self.clock = clock

    def __getitem__(self, step):
        self.clock.now += 3.0
        return Numbers(torch.tensor([step + 1.0]))

    def images(self, step):
        return torch.tensor([step])


class Line(nn.Module):
    """Loss w x, whose gradient is x; takes 1 s."""

    def __init__(self, clock):
        super().__init__()
        self.clock, self.w = clock, nn.Parameter(torch.tensor(2.0))

    def forward(self, batch, step):
        self.clock.now += 1.0
        return (self.w * batch.x).mean(), {}


class LineTask(Task):
    def __init__(self, clock):
        self.module = Line(clock)
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=0.125, fused=True)

    def at_block(self):
        return {"ema_drift": torch.tensor(0.125)}

    def files(self):
        return {}

    def load(self, folder):
        pass


def fit(clock, folder, **more):
    processes = Processes(ComputeConfig(device="cpu", progress=False, log_every=2, checkpoint_every=0))
    training_loop(processes, LineTask(clock), Slow(clock), steps=5, folder=folder, recipe={}, title="line", **more)
    return read_log(folder / "trace.jsonl")


def test_the_training_loop_measures_every_block(clock, tmp_path):
    lines = fit(clock, tmp_path, work=Work(8, 10**12))
    assert [line["grad_norm"] for line in lines] == [1, 2, 3, 4, 5]
    blocks = [line for line in lines if "images_per_s" in line]
    assert [line["step"] for line in blocks] == [1, 3, 4]
    for line in blocks:
        assert (line["images_per_s"], line["tflops"], line["data_wait"], line["ema_drift"]) == (2.0, 2.0, 0.75, 0.125)
        assert 0.01 < line["memory_gib"] < 100


def test_without_work_no_speed_is_claimed(clock, tmp_path):
    last = fit(clock, tmp_path)[-1]
    assert last["data_wait"] == 0.75 and "images_per_s" not in last and "tflops" not in last


def test_the_bar_shows_loss_and_speed(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=screen, force_terminal=True, width=150))
    with progress.progress_bar("train x", 10) as bar:
        bar(4)
        bar.note(summary({"step": 3, "loss": 0.123456, "images_per_s": 1234.5}))
    assert "loss 0.1235, 1,234 images/s" in screen.getvalue() and "4/10" in screen.getvalue()
    assert summary({"step": 3, "loss": 0.5}) == "loss 0.5"


def test_notes_of_forwarded_bars_go_nowhere():
    counts = []
    with progress.forwarding(counts.append), progress.progress_bar("inner", 10, done=2) as bar:
        bar(3)
        bar.note("loss 1")
    assert counts == [2, 3]


# training is left as it was


def run_in(experiment, folder, compute, **settings):
    schedule = experiment.train.schedule.model_copy(update={"kind": "offset"})
    changed = experiment.train.model_copy(update={"schedule": schedule, **settings})
    compute = experiment.compute.model_copy(update=compute)
    return experiment.model_copy(update={"output": folder, "train": changed, "compute": compute})


def plain_loop(config):
    """The same training without processes, log or watch: the losses of every step, and the weights."""
    settings, shards = config.train, config.shards("train", features=True)
    with seeded(Stream.INITIALISE, config.seed):
        model = config.model.build(config.layout, shards.shape, shards.feature_dim)
    objective = DenoiserObjective(model, config.layout, choose_schedule(config), settings, config.seed)
    optimizer, ema = adamw((model, settings.lr)), EMA(model, settings.ema_decay)
    batches, losses, norms = StepBatches(shards, settings.batch, config.seed), [], []
    for step in range(settings.steps):
        loss, _ = objective(batches[step], step)
        loss.backward()
        norms.append(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]).item())
        optimizer.step()
        optimizer.zero_grad()
        ema.update()
        losses.append(loss.item())
    return model, ema.model, losses, norms


@pytest.mark.parametrize(
    ("compute", "settings"),
    [({}, {}), ({"log_every": 1, "trackers": ("tensorboard",)}, {"heldout_every": 3}), ({"log_every": 3}, {})],
    ids=["default", "everything", "blocks"],
)
def test_watching_leaves_training_bit_identical(experiment, tmp_path, compute, settings):
    if "trackers" in compute:
        pytest.importorskip("tensorboard", reason="not installed")
    config = run_in(experiment, tmp_path / "run", compute, steps=12, **settings)
    end = train.run(config)
    model, average, losses, norms = plain_loop(config)
    lines = read_log(end.parent / "trace.jsonl")
    assert [line["loss"] for line in lines] == losses
    assert [line["grad_norm"] for line in lines] == norms
    for expected, name in ((model, "model"), (average, "ema")):
        found = load_model(end / name).state_dict()
        assert found.keys() == expected.state_dict().keys()
        assert all(torch.equal(found[key], value) for key, value in expected.state_dict().items())
    last = lines[-1]
    every = compute.get("log_every", 12)
    for name in config.layout.names:
        assert sum(last[f"loss_by_time_{name}_count"]) == every * config.train.batch
    expected_tflops = last["images_per_s"] * training_flops(model, project=True) / 1e12
    assert last["tflops"] == pytest.approx(expected_tflops, rel=1e-5)  # float32
    assert 0 < last["ema_drift"] < 1 and 0 < last["data_wait"] < 1
