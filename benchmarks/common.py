"""What the benchmarks share: timing, the ceiling (a large plain matrix product), a training step, who is measuring."""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from lwd.data.batches import StepBatch
from lwd.data.shards import Batch
from lwd.groups import Group, Layout
from lwd.models import LightningDiT, create, training_flops
from lwd.probe import Probe
from lwd.probe.task import ProbeObjective
from lwd.schedules import Schedule
from lwd.stages.train import TrainSettings
from lwd.stages.train.run import DenoiserObjective
from lwd.training.ema import EMA
from lwd.training.optim import adamw

LAYOUT = Layout([Group("tex", 32, 1.0), Group("sem", 16, 2.0)])
"""ImageNet-256's composite latent, on a 16x16 grid."""
GRID = 16
CLASSES = 1000
FEATURE_DIM = 768
PRODUCTS = 5
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def median_seconds(run: Callable[[], object], repeats: int, warm_up: int = 2) -> float:
    """Median wall time of ``run``, the device's work included, after ``warm_up`` calls."""
    times = []
    for i in range(repeats + warm_up):
        start = time.perf_counter()
        run()
        synchronise()
        if i >= warm_up:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def synchronise() -> None:
    """Wait for the device."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def free() -> None:
    """Give back the device's unused memory. Compiled modules lie in cycles, which only the collector ends."""
    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()


def against_matmul(run: Callable[[], object], dtype: torch.dtype, repeats: int) -> tuple[float, float]:
    """Median seconds of ``run`` and median FLOP/s of the plain product, measured in turns: machines drift."""
    n = 8192 if DEVICE == "cuda" else 2048
    a, b = torch.randn(n, n, device=DEVICE, dtype=dtype), torch.randn(n, n, device=DEVICE, dtype=dtype)

    def products() -> None:
        for _ in range(PRODUCTS):
            a @ b

    run()
    times = [(median_seconds(products, 1, 0), median_seconds(run, 1, 0)) for _ in range(repeats)]
    products_s, run_s = (statistics.median(column) for column in zip(*times, strict=True))
    return run_s, PRODUCTS * 2 * n**3 / products_s


def matmul_rate(dtype: torch.dtype) -> float:
    """FLOP/s of a large square product of random numbers: the ceiling."""
    n = 8192 if DEVICE == "cuda" else 2048
    a, b = torch.randn(n, n, device=DEVICE, dtype=dtype), torch.randn(n, n, device=DEVICE, dtype=dtype)
    return 2 * n**3 / median_seconds(lambda: a @ b, 10)


def autocast(precision: str) -> AbstractContextManager[object]:
    """bf16 autocast, or nothing."""
    return torch.autocast(DEVICE, torch.bfloat16) if precision == "bf16" else nullcontext()


@dataclass(frozen=True)
class Variant:
    """What a step does beside forward, backward and AdamW."""

    title: str
    ema: bool = False
    repa: bool = False
    probe: bool = False


def step_batch(batch: int, features: bool) -> StepBatch:
    """Random latents of ImageNet-256's shapes."""
    x1 = torch.randn(batch, LAYOUT.channels, GRID, GRID, device=DEVICE)
    labels = torch.randint(0, CLASSES, (batch,), device=DEVICE)
    feats = torch.randn(batch, FEATURE_DIM, GRID, GRID, device=DEVICE).half() if features else None
    return StepBatch(Batch(x1, labels, feats), torch.arange(batch, device=DEVICE))


def step_parser(description: str | None) -> argparse.ArgumentParser:
    """What the benchmarks of training steps take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="S")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", choices=["no", "bf16"], default="no")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=DEVICE == "cuda")
    parser.add_argument("--checkpointing", action="store_true", help="recompute the blocks in the backward pass")
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--repeats", type=int, default=9)
    return parser


def followed_parser(description: str | None) -> argparse.ArgumentParser:
    """The options of what is followed without a card."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="Mini")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--grid", type=int, default=4)
    return parser


def network(size: str, grid: int = GRID, feature_dim: int | None = None) -> LightningDiT:
    """A network with random weights, drawn where it is: on the CPU the weights of XL take ten seconds."""
    with torch.device(DEVICE):
        return create(f"LightningDiT-{size}/1", LAYOUT, grid, CLASSES, feature_dim)


def training_step(variant: Variant, arguments: argparse.Namespace) -> tuple[Callable[[], None], int]:
    """The step as a function, and its operations by count."""
    torch.manual_seed(0)
    feature_dim = FEATURE_DIM if variant.repa else None
    model = network(arguments.size, feature_dim=feature_dim)
    model.checkpoint_blocks = arguments.checkpointing
    schedule = Schedule.learnable(LAYOUT.names, "sem").to(DEVICE)
    objective: DenoiserObjective | ProbeObjective
    if variant.probe:
        probe = Probe(LAYOUT, "sem").to(DEVICE)

        def drop(labels: torch.Tensor, dropped: torch.Tensor) -> torch.Tensor:
            return torch.where(dropped, model.null_label, labels)

        objective = ProbeObjective(model, probe, 0, TrainSettings().label_dropout, drop)
        optimizer = adamw((model, 1e-4), (probe, 1e-2))
    else:
        objective = DenoiserObjective(model, LAYOUT, schedule, TrainSettings(), 0)
        optimizer = adamw((model, 1e-4))
    average = EMA(model, 0.9999) if variant.ema else None
    if arguments.compile:
        model.compile_blocks()
    data = step_batch(arguments.batch, variant.repa)

    def step() -> None:
        with autocast(arguments.precision):
            loss, _ = objective(data, 0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if average is not None:
            average.update()

    return step, arguments.batch * training_flops(model, variant.repa)


def record(what: str, **figures: float) -> None:
    """Append figures to the file of JSON lines that $FIGURES names, if any: what `gpu.sh` sums up and takes along."""
    if file := os.environ.get("FIGURES"):
        line = {"benchmark": Path(sys.argv[0]).stem, "what": what, **figures}
        with Path(file).open("a") as out:
            out.write(json.dumps(line) + "\n")


def machine() -> str:
    """Date, processor and versions, for the head of a result."""
    if DEVICE == "cuda":
        name = torch.cuda.get_device_name()
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
        name += f", {torch.get_num_threads()} threads"
    return f"{datetime.date.today()}, {name}, torch {torch.__version__}, Python {platform.python_version()}"
