"""What the benchmarks share: timing, the ceiling (a large plain matrix product), and who is measuring."""

from __future__ import annotations

import datetime
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from lwd.groups import Group, Layout

LAYOUT = Layout([Group("tex", 32, 1.0), Group("sem", 16, 2.0)])
"""ImageNet-256's composite latent, on a 16x16 grid."""
GRID = 16
CLASSES = 1000
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


def machine() -> str:
    """Date, processor and versions, for the head of a result."""
    if DEVICE == "cuda":
        name = torch.cuda.get_device_name()
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
        name += f", {torch.get_num_threads()} threads"
    return f"{datetime.date.today()}, {name}, torch {torch.__version__}, Python {platform.python_version()}"
