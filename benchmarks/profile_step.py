"""Where does a training step's time go? The kernels that take most, and the gaps in which the device waits.

    python benchmarks/profile_step.py                                             # CPU, float32
    python benchmarks/profile_step.py --size XL --batch 256 --precision bf16      # GPU

The step has the REPA head and the EMA, as `lwd train` runs it. Busy: the kernels' time over the wall clock of the same
profiled steps, on a GPU; the rest is gaps. Profiling itself slows a CPU down, so its times are shares, not speeds.
"""

from __future__ import annotations

import time

import torch
from common import DEVICE, Variant, machine, median_seconds, record, step_parser, synchronise, training_step
from torch.profiler import ProfilerActivity, profile

STEPS = 5
TOP = 10


def main() -> None:
    """Profile and print."""
    arguments = step_parser(__doc__).parse_args()
    torch.set_float32_matmul_precision("high" if arguments.tf32 else "highest")
    print(machine())
    step, _ = training_step(Variant("", ema=True, repa=True), arguments)
    alone = median_seconds(step, STEPS)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if DEVICE == "cuda" else [])]
    with profile(activities=activities) as found:
        start = time.perf_counter()
        for _ in range(STEPS):
            step()
        synchronise()
        wall = time.perf_counter() - start
    on_device = DEVICE == "cuda"
    seconds = {
        event.key: (event.self_device_time_total if on_device else event.self_cpu_time_total) / 1e6
        for event in found.key_averages()
    }
    total = sum(seconds.values())
    print(f"step {alone:.4f} s alone, {wall / STEPS:.4f} s profiled")
    if on_device:
        print(f"busy {total / wall:.1%} of the time")
    for name, took in sorted(seconds.items(), key=lambda item: -item[1])[:TOP]:
        print(f"{took / total:7.1%} {took / STEPS * 1e3:9.3f} ms  {name[:90]}")
        record(name[:90], share=took / total, ms=took / STEPS * 1e3)
    record("step", seconds=alone, busy=total / wall)


if __name__ == "__main__":
    main()
