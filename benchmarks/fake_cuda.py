"""Would a step on a card make the host wait for it? Followed on a stand-in, where there is no card.

    python benchmarks/fake_cuda.py                                  # LightningDiT-Mini, in seconds
    python benchmarks/fake_cuda.py --size XL --weak-size B --batch 256

Whole steps of training, probe, held-out loss, map and sampling with AutoGuidance, as `lwd` runs them on CUDA under
bf16: every tensor that a step makes must be on the card, and nothing may wait for it (`card_stand_in.py`). One row per
step: operations on the card, where the host would have waited, and the batches that the network saw. Exits with 1
where anything waits.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import card_stand_in
import torch
from accelerate.utils import send_to_device
from common import CLASSES, FEATURE_DIM, LAYOUT, followed_parser, record
from torch import Tensor, nn

from lwd.data.batches import StepBatch
from lwd.data.shards import Batch, LatentShards
from lwd.maps import LogSNR
from lwd.maps.measure import measure_over
from lwd.models import ModelConfig, dropper
from lwd.ode.pool import _Look
from lwd.ode.slots import DONE, RUNNING
from lwd.probe import Probe
from lwd.probe.settings import LearnSettings
from lwd.probe.task import ProbeObjective, ProbeTask
from lwd.runtime.processes import Processes
from lwd.sample import AutoGuidance, generate
from lwd.schedules import Schedule
from lwd.stages.map.run import noise, velocity_of
from lwd.stages.train import TrainSettings
from lwd.stages.train.heldout import HeldOut
from lwd.stages.train.run import DenoiserObjective, TrainTask
from lwd.training.guard import Guard
from lwd.training.logging import MetricLog
from lwd.training.optim import adamw
from lwd.training.task import Task

CARD = torch.device("cuda")
STEPS = 2


class Followed:
    """The parts that steps are made of: networks on the stand-in, real data on the host."""

    def __init__(self, card: card_stand_in.StandIn, arguments: argparse.Namespace) -> None:
        self.card, self.batch, self.grid = card, arguments.batch, arguments.grid
        self.schedule = Schedule.offset(LAYOUT.names, "sem").to(CARD)
        self.seen: list[int] = []
        self.sizes = arguments.size, arguments.weak_size
        x1 = torch.randn(arguments.batch, LAYOUT.channels, self.grid, self.grid)
        labels = torch.arange(arguments.batch) % CLASSES
        self.data = Batch(x1, labels, torch.randn(arguments.batch, FEATURE_DIM, self.grid, self.grid).half())

    def network(self, size: str, feature_dim: int | None = None, depth: int | None = None) -> nn.Module:
        """A network on the card, whose batches are written down; ``depth``: another than the size's."""
        config = ModelConfig(name=f"LightningDiT-{size}/1", num_classes=CLASSES, depth=depth)
        with self.card.waiting(), CARD:
            model = config.build(LAYOUT, (self.grid,) * 2, feature_dim)
        model.register_forward_pre_hook(lambda _, inputs: self.seen.append(len(inputs[0])))
        return model

    def processes(self) -> Processes:
        """One process on the card, under bf16."""
        known: dict[str, Any] = {"device": CARD, "rank": 0, "world": 1, "dtype": torch.bfloat16}
        known |= {"mean": lambda value: value, "autocast": lambda: torch.autocast("cuda", torch.bfloat16)}
        return cast(Processes, SimpleNamespace(**known))

    def steps(self, task: Task, batch: Batch, count: int = STEPS) -> None:
        """A few steps as `lwd.training.loop.fit` does them, and the end of a block of the log."""
        guard = Guard(task.module.parameters(), task.optimizer, 1.0, 20.0)
        log = MetricLog(None, lambda value: value, False)
        for step in range(count):
            task.before_step(step)
            on_card = send_to_device(StepBatch(batch, torch.arange(len(batch.x1))), CARD, non_blocking=True)
            with torch.autocast("cuda", torch.bfloat16):
                loss, metrics = task.module(on_card, step)
            loss.backward()
            metrics = {"loss": loss, **metrics, **guard.inspect()}
            guard.step()
            task.optimizer.zero_grad(set_to_none=True)
            log.add(step, {**metrics, **task.after_step(step + 1)})
        with self.card.waiting():
            log.flush({name: float(value) for name, value in task.at_block().items()})


def train(parts: Followed) -> None:
    """Training with the REPA head, the direction loss, both kinds of averages and a rate that changes."""
    model = parts.network(parts.sizes[0], FEATURE_DIM)
    settings = TrainSettings(posthoc_ema=(0.05,), warmup_steps=10)
    with parts.card.waiting():
        task = TrainTask(DenoiserObjective(model, LAYOUT, parts.schedule, settings, 0), settings)
    parts.steps(task, parts.data)


def probe(parts: Followed) -> None:
    """Learning the schedule."""
    model = parts.network(parts.sizes[0])
    with parts.card.waiting():
        learning = Probe(LAYOUT, "sem", burn_in=1).to(CARD)
        objective = ProbeObjective(model, learning, 0, 0.1, dropper(model))
        task = ProbeTask(objective, adamw((model, 1e-4), (learning, 1e-2)), LearnSettings())
    parts.steps(task, parts.data._replace(features=None))


def heldout(parts: Followed) -> None:
    """The held-out loss of a whole batch and a part of one."""
    rows = parts.batch + parts.batch // 2 + 1
    shards = Held(parts.data, rows)
    model = parts.network(parts.sizes[0]).eval()
    held = HeldOut(cast(LatentShards, shards), parts.schedule, "mean_flat", parts.batch, 0, parts.processes())
    held.measure(model)


class Held:
    """Held-out data that repeats a batch."""

    def __init__(self, data: Batch, count: int) -> None:
        self.layout, self._data, self._count = LAYOUT, data, count

    def __len__(self) -> int:
        return self._count

    def read(self, rows: Tensor) -> Batch:
        """The images ``rows`` (n,)."""
        rows = rows % len(self._data.x1)
        return Batch(self._data.x1[rows], self._data.labels[rows], None)


def map_block(parts: Followed) -> None:
    """A block of the map: 3 x 3 points of a few images."""
    images = min(parts.batch, 32)
    model = parts.network(parts.sizes[0]).eval()
    x1 = parts.data.x1[:images].to(CARD, non_blocking=True)
    labels = parts.data.labels[:images].to(CARD, non_blocking=True)
    noises = [noise(0, 0, torch.arange(images), x1)]
    velocity = velocity_of(model, labels, parts.processes())
    batch = max(2, images * 9 // 2 - 1)  # two whole ones and a part
    found = measure_over(velocity, x1, noises, LAYOUT, "sem", LogSNR(3, 8.0), batch)
    with parts.card.waiting():
        [values.cpu() for values in found]


def sample(parts: Followed) -> None:
    """Sampling with AutoGuidance, dopri5, more samples than slots; who ends when is made up."""
    main, weak = (parts.network(size).eval() for size in parts.sizes)
    count = parts.batch + parts.batch // 4

    def ended(look: _Look) -> Tensor:
        """A status that the card would have sent: half of the slots end at every look, the last few together."""
        size = len(look.status)
        look.status.fill_(RUNNING)[: size if size < 4 else size // 2] = DONE  # of so few slots none is left out
        return look.status

    labels = torch.arange(count) % CLASSES
    with mock.patch.object(_Look, "read", ended), torch.autocast("cuda", torch.bfloat16):
        generate(
            main,
            parts.schedule,
            LAYOUT,
            labels,
            torch.arange(count),
            (LAYOUT.channels, parts.grid, parts.grid),
            guidance=AutoGuidance(weak, 1.5),
            batch=parts.batch,
        )


def control(parts: Followed) -> None:
    """What does wait: `Guard` under an optimiser that is not fused reads a number in each step."""
    layer = nn.Linear(2, 2).to(CARD, non_blocking=True)
    guard = Guard(layer.parameters(), torch.optim.SGD(layer.parameters(), 0.1), 1.0, 20.0)
    layer(torch.ones(1, 2, device=CARD)).sum().backward()
    guard.inspect()
    guard.step()


RUNS: dict[str, Callable[[Followed], None]] = {
    "train": train,
    "probe": probe,
    "held-out": heldout,
    "map": map_block,
    "sample": sample,
}


def follow(run: Callable[[Followed], None], arguments: argparse.Namespace) -> tuple[card_stand_in.StandIn, list[int]]:
    """What the card saw of a step, and the batches that its networks saw."""
    with card_stand_in.stand_in() as card:
        parts = Followed(card, arguments)
        run(parts)
    return card, parts.seen


def main() -> None:
    """Follow and print."""
    parser = followed_parser(__doc__)
    parser.add_argument("--weak-size", default="Mini")
    parser.add_argument("--only", choices=RUNS, nargs="+", default=list(RUNS))
    arguments = parser.parse_args()
    if "reads a number" not in "".join(follow(control, arguments)[0].waits):
        raise SystemExit("the stand-in did not notice a wait that is there")
    waiting = 0
    print(f"LightningDiT-{arguments.size}/1, batch {arguments.batch}, torch {torch.__version__}, no card")
    print(f"{'step':10s} {'operations':>10s} {'waits':>6s} {'s':>6s}  batches")
    for name in arguments.only:
        started = time.perf_counter()
        card, seen = follow(RUNS[name], arguments)
        seconds, batches = time.perf_counter() - started, " ".join(map(str, dict.fromkeys(seen)))
        record(name, operations=card.operations, waits=len(card.waits), largest=max(seen), smallest=min(seen))
        print(f"{name:10s} {card.operations:10d} {len(card.waits):6d} {seconds:6.1f}  {batches}", flush=True)
        for where in dict.fromkeys(card.waits):
            print(f"  waits: {where} ({card.waits.count(where)} times)")
        waiting += len(card.waits)
    raise SystemExit(waiting > 0)


if __name__ == "__main__":
    main()
