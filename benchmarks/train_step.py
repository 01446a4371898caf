"""How fast is a training step, against the fastest plain matrix product of the same machine in the same run?

    python benchmarks/train_step.py --size S --batch 8                         # CPU, float32
    python benchmarks/train_step.py --size XL --batch 256 --precision bf16     # GPU

Prints one row per variant of the step: seconds (median), images/s, TFLOP/s by `torch.utils.flop_counter`, and the
share of the matrix product's rate. Rows add, to forward + backward + AdamW: the EMA; the REPA head; the gradients of
the probe into the local times.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lwd.data.batches import StepBatch
from lwd.data.shards import Batch
from lwd.groups import Group, Layout
from lwd.models import create
from lwd.probe.loop import ProbeObjective, ProbeSettings
from lwd.runtime.ema import EMA
from lwd.runtime.optim import adamw
from lwd.schedules import Schedule
from lwd.train.loop import DenoiserObjective, TrainSettings

LAYOUT = Layout([Group("tex", 32, 1.0), Group("sem", 16, 2.0)])


def median_seconds(run: Callable[[], object], repeats: int, device: str) -> float:
    """Median wall time of ``run`` after two warm-ups."""
    times = []
    for i in range(repeats + 2):
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        if i >= 2:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def matmul_rate(dtype: torch.dtype, device: str, repeats: int) -> float:
    """FLOP/s of a large square product on random data: the ceiling."""
    n = 8192 if device == "cuda" else 2048
    a, b = torch.randn(n, n, device=device, dtype=dtype), torch.randn(n, n, device=device, dtype=dtype)
    return 2 * n**3 / median_seconds(lambda: a @ b, max(repeats, 5), device)


def step_batch(batch: int, features: bool, device: str) -> StepBatch:
    """Random latents of ImageNet-256's shapes."""
    x1 = torch.randn(batch, LAYOUT.channels, 16, 16, device=device)
    labels = torch.randint(0, 1000, (batch,), device=device)
    feats = torch.randn(batch, 768, 16, 16, device=device).half() if features else None
    return StepBatch(Batch(x1, labels, feats), torch.arange(batch, device=device))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="S")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", choices=["no", "bf16"], default="no")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
    autocast = torch.autocast(device, dtype) if arguments.precision == "bf16" else nullcontext()

    ceiling = matmul_rate(dtype, device, arguments.repeats)
    print(f"{platform.processor() or platform.machine()}, {device}, torch {torch.__version__}, "
          f"{torch.get_num_threads()} threads; LightningDiT-{arguments.size}/1, batch {arguments.batch}, "
          f"precision {arguments.precision}")  # fmt: skip
    print(f"plain matmul: {ceiling / 1e12:.3f} TFLOP/s")
    print(f"{'step':34s} {'s':>8s} {'images/s':>9s} {'TFLOP/s':>8s} {'of matmul':>9s}")
    schedule = Schedule.learnable(LAYOUT.names, "sem").to(device)
    for title, ema, repa, probe in (
        ("forward, backward, AdamW", False, False, False),
        ("the same, and EMA", True, False, False),
        ("the same, and EMA, REPA", True, True, False),
        ("probe step (times, rho)", False, False, True),
    ):
        model = create(f"LightningDiT-{arguments.size}/1", LAYOUT, 16, 1000, 768 if repa else None).to(device)
        objective = (
            ProbeObjective(model, schedule.requires_grad_(True), ProbeSettings(), 0)
            if probe
            else DenoiserObjective(model, schedule, TrainSettings(), 0)
        )
        optimizer = adamw((model, 1e-4), (schedule, 1e-2)) if probe else adamw((model, 1e-4))
        average = EMA(model, 0.9999) if ema else None
        batch = step_batch(arguments.batch, repa, device)

        def step(
            objective: ProbeObjective | DenoiserObjective = objective,
            optimizer: torch.optim.Optimizer = optimizer,
            average: EMA | None = average,
            batch: StepBatch = batch,
        ) -> Tensor:
            with autocast:
                loss: Tensor = objective(batch, 0)[0]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average is not None:
                average.update()
            return loss

        with FlopCounterMode(display=False) as counter:
            step()
        seconds = median_seconds(step, arguments.repeats, device)
        rate = counter.get_total_flops() / seconds
        print(f"{title:34s} {seconds:8.3f} {arguments.batch / seconds:9.1f} {rate / 1e12:8.3f} {rate / ceiling:9.1%}")
    if device == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
