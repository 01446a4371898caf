"""What does a checkpoint cost a training run? It is copied in one step and written behind the following ones.

    python benchmarks/checkpoint.py --size S --batch 8
    python benchmarks/checkpoint.py --size XL --batch 256 --precision bf16     # GPU

Prints the size of a checkpoint (weights, EMA, both moments), the median step, the copy, which holds one step up, the
steps during the writing as a multiple of the median, and how long the writing took.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import DEVICE, LAYOUT, autocast, machine, network, record, step_batch, synchronise

from lwd.runtime.checkpoint import Files, find_checkpoints
from lwd.runtime.processes import keep_freed_memory
from lwd.schedules import Schedule
from lwd.stages.train import TrainSettings
from lwd.stages.train.run import DenoiserObjective, TrainTask
from lwd.training.writer import CheckpointWriter


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="S")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", choices=["no", "bf16"], default="no")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write; default: the system's temporary folder")
    arguments = parser.parse_args()
    if DEVICE == "cpu":
        keep_freed_memory()  # as `Processes` does
    model = network(arguments.size)
    objective = DenoiserObjective(model, LAYOUT, Schedule.learnable(LAYOUT.names, "sem").to(DEVICE), TrainSettings(), 0)
    task = TrainTask(objective, TrainSettings())
    if DEVICE == "cuda":
        model.compile_blocks()
    batch = step_batch(arguments.batch, features=False)

    def step() -> float:
        start = time.perf_counter()
        with autocast(arguments.precision):
            loss, _ = objective(batch, 0)
        loss.backward()
        task.optimizer.step()
        task.optimizer.zero_grad(set_to_none=True)
        task.after_step(1)
        synchronise()
        return time.perf_counter() - start

    step()
    alone, copies, writes, beside = [step() for _ in range(5)], [], [], []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name, CheckpointWriter(Path(name), {}) as writer:
        for number in range(arguments.rounds):
            written: list[float] = []
            start = time.perf_counter()
            writer.put(number, Files(task.files()), lambda done=written: done.append(time.perf_counter()))
            begun = time.perf_counter()
            copies.append(begun - start)
            while not written:
                beside.append(step())
            writes.append(written[0] - begun)
            alone += [step() for _ in range(3)]
        first = find_checkpoints(Path(name))[0]
        size = sum(file.stat().st_size for file in first.rglob("*") if file.is_file())
    median, copy, write = (statistics.median(times) for times in (alone, copies, writes))
    record(f"{arguments.size}, {size / 2**30:.2f} GiB", step_s=median, copy_s=copy, write_s=write)
    print(machine())
    print(f"LightningDiT-{arguments.size}/1, batch {arguments.batch}, checkpoint {size / 2**30:.2f} GiB")
    print(f"step {median:.3f} s; copy {copy:.3f} s = {copy / median:.2f} steps")
    print(f"steps while writing: median {statistics.median(beside) / median:.2f}, worst {max(beside) / median:.2f}")
    print(f"writing took {write:.2f} s, {size / 2**30 / write:.2f} GiB/s")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
