"""How fast is the network at sampling time, eager and compiled, from one image to 512?

    python benchmarks/forward.py --size S --batches 1 4 8                      # CPU, float32
    python benchmarks/forward.py --size XL --precision bf16                    # GPU, batch 1 to 512

Per batch size: seconds of one evaluation, images/s, and the share of a plain matrix product's rate in the same run. The
REPA projector, which a trained checkpoint holds, is not evaluated.
"""

from __future__ import annotations

import argparse
import time

import torch
from common import (
    CLASSES,
    DEVICE,
    FEATURE_DIM,
    GRID,
    LAYOUT,
    autocast,
    machine,
    matmul_rate,
    median_seconds,
    network,
    record,
    synchronise,
)

from lwd.models import forward_flops
from lwd.runtime.processes import keep_freed_memory

BATCHES = {"cuda": [1, 4, 16, 64, 256, 512], "cpu": [1, 8]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="S")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES[DEVICE])
    parser.add_argument("--precision", choices=["no", "bf16"], default="no")
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    if DEVICE == "cpu":
        keep_freed_memory()  # as `Processes` does
    torch.set_float32_matmul_precision("high" if arguments.tf32 else "highest")
    ceiling = matmul_rate(torch.bfloat16 if arguments.precision == "bf16" else torch.float32)
    print(machine())
    print(f"LightningDiT-{arguments.size}/1, precision {arguments.precision}; matmul {ceiling / 1e12:.3f} TFLOP/s")
    print(f"{'batch':>6s} {'':9s} {'first call s':>12s} {'s':>9s} {'images/s':>9s} {'share':>7s}")
    model = network(arguments.size, feature_dim=FEATURE_DIM).eval()
    for mode in ("eager", "compiled"):
        if mode == "compiled":
            model.compile_blocks()
        for batch in arguments.batches:
            z = torch.randn(batch, LAYOUT.channels, GRID, GRID, device=DEVICE)
            times = torch.rand(batch, len(LAYOUT.groups), device=DEVICE)
            labels = torch.randint(0, CLASSES, (batch,), device=DEVICE)

            def forward(z: torch.Tensor = z, times: torch.Tensor = times, labels: torch.Tensor = labels) -> None:
                with torch.inference_mode(), autocast(arguments.precision):
                    model(z, times, labels)

            start = time.perf_counter()
            forward()
            synchronise()
            first = time.perf_counter() - start
            s = median_seconds(forward, arguments.repeats)
            share = batch * forward_flops(model) / s / ceiling
            record(f"{arguments.size}, batch {batch}, {mode}", images_per_s=batch / s, share=share, first_s=first)
            print(f"{batch:6d} {mode:9s} {first:12.2f} {s:9.4f} {batch / s:9.1f} {share:7.1%}", flush=True)


if __name__ == "__main__":
    main()
