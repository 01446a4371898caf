"""What does the engine cost over a bare PyTorch loop at the demo's size, where a step takes a few milliseconds?

    OMP_NUM_THREADS=1 python benchmarks/loop_overhead.py --data runs/digits/data

Both train the network of configs/digits.yaml on the same latents, with the same loss, fused AdamW and EMA. The bare
loop has its data in memory, draws with torch's own generator and keeps the loss; the engine is the loop of `lwd train`:
counter-based draws, data read ahead, the guard, losses by group and by time, the log and checkpoints. They take turns
in one process; CPU time is of all threads. A run of the engine is counted from its first step to its return
(``--no-folder``: without log file and checkpoints). Prints each pair, then median, least and greatest ratio.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import machine
from torch import Tensor, nn

from lwd.config import load
from lwd.data.batches import StepBatches
from lwd.flow import cosine_direction_loss, flow_loss, interpolate, repa_loss
from lwd.runtime.processes import Processes
from lwd.runtime.seeding import Stream, seeded
from lwd.schedules import Schedule
from lwd.stages.experiment import Experiment
from lwd.stages.train.run import DenoiserObjective, TrainTask
from lwd.training.loop import fit
from lwd.training.optim import adamw

CONFIG = Path(__file__).parents[1] / "configs" / "digits.yaml"
Seconds = tuple[float, float]
"""Of the CPU and of the wall clock."""


def clock() -> Seconds:
    """Now."""
    return time.process_time(), time.perf_counter()


def since(start: Seconds, steps: int) -> Seconds:
    """Seconds a step."""
    cpu, wall = clock()
    return (cpu - start[0]) / steps, (wall - start[1]) / steps


class Bench:
    """The demo's network, data and schedule (a learnable one, as it starts), and both loops over them."""

    def __init__(self, config: Experiment) -> None:
        self.config, self.processes = config, Processes(config.compute)
        self.shards = config.shards("train", features=config.train.repa_weight > 0)
        self.schedule = Schedule.learnable(config.layout.names, config.leader)
        self.schedule.requires_grad_(False)
        self.memory = self.shards.read(torch.arange(len(self.shards)))

    def model(self) -> nn.Module:
        """A fresh network, the same each time."""
        with seeded(Stream.INITIALISE, self.config.seed):
            return self.config.model.build(self.config.layout, self.shards.shape, self.shards.feature_dim)

    def bare(self, steps: int) -> Seconds:
        """A loop as in a tutorial."""
        settings, layout, model = self.config.train, self.config.layout, self.model()
        average = [p.detach().clone() for p in model.parameters() if p.requires_grad]
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = adamw((model, settings.lr))
        data, labels, features = self.memory
        losses: list[float] = []
        pending: list[Tensor] = []
        start = clock()
        for step in range(steps):
            if step * settings.batch % len(data) < settings.batch:
                order = torch.randperm(len(data))
            first = step * settings.batch % (len(data) - settings.batch)
            rows = order[first : first + settings.batch]
            x1, y = data[rows], labels[rows]
            times, rates = self.schedule(torch.rand(len(x1)))
            z, u = interpolate(torch.randn_like(x1), x1, times, layout)
            y = torch.where(torch.rand(len(y)) < settings.label_dropout, self.config.model.num_classes, y)
            if features is None:
                v = model(z, times, y)
            else:
                v, projected = model(z, times, y, project=True)
            loss = flow_loss(v, u, rates, layout)[0] + settings.cosine_weight * cosine_direction_loss(v, u, layout)
            if features is not None:
                loss = loss + settings.repa_weight * repa_loss(projected, features[rows])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                torch._foreach_lerp_(average, weights, 1 - settings.ema_decay)
            pending.append(loss.detach())
            if (step + 1) % self.config.compute.log_every == 0:
                losses += torch.stack(pending).tolist()
                pending.clear()
        return since(start, steps)

    def engine(self, steps: int, folder: Path | None) -> Seconds:
        """The loop of `lwd train`, up to ``steps``."""
        config, started = self.config, [clock()]
        objective = DenoiserObjective(self.model(), config.layout, self.schedule, config.train, config.seed)
        task = TrainTask(objective, config.train)

        def on_start() -> None:
            started[0] = clock()

        batches = StepBatches(self.shards, config.train.batch, config.seed)
        fit(self.processes, task, batches, steps=steps, folder=folder, title="train", on_start=on_start)
        return since(started[0], steps)


def pairs(bench: Bench, arguments: argparse.Namespace, take: Callable[[Path], Path | None]) -> None:
    """Measure and print."""
    ratios = []
    with tempfile.TemporaryDirectory(prefix="lwd-overhead-") as name:
        for pair in range(-1, arguments.pairs):
            steps = arguments.steps if pair >= 0 else arguments.steps // 10  # the first pair warms up
            bare, engine = bench.bare(steps), bench.engine(steps, take(Path(name) / str(pair)))
            if pair >= 0:
                ratios.append([ours / plain for ours, plain in zip(engine, bare, strict=True)])
                milliseconds = " ".join(f"{1000 * s:7.3f}" for s in (*bare, *engine))
                print(f"{milliseconds}   {ratios[-1][0]:.3f} {ratios[-1][1]:.3f}", flush=True)
    for what, column in zip(("CPU", "wall"), zip(*ratios, strict=True), strict=True):
        middle = statistics.median(column)
        print(f"{what}: engine / bare {middle:.3f} (least {min(column):.3f}, greatest {max(column):.3f})")


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that `lwd encode` filled")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--no-folder", action="store_true")
    arguments = parser.parse_args()
    config = load(Experiment, CONFIG, [f"data.path={arguments.data}", "compute.progress=false"])
    print(machine())
    print("ms a step: bare CPU, wall; engine CPU, wall; ratios of CPU and wall")
    pairs(Bench(config), arguments, lambda folder: None if arguments.no_folder else folder)


if __name__ == "__main__":
    main()
