"""How fast is a training step, against the fastest plain matrix product of the same machine in the same run?

    python benchmarks/train_step.py --size S --batch 8                         # CPU, float32
    python benchmarks/train_step.py --size XL --batch 256 --precision bf16     # GPU

One row per variant of the step: seconds (median), images/s, TFLOP/s from the analytic count (`lwd.models.flops`: three
times the forward pass's matrix products; `tests/models/test_flops.py` holds it against PyTorch's counter), its share of
the matrix product's rate, measured in turns with the step, peak memory, and the first step, which compiles. Then what
the EMA, the REPA head and the probe's gradients towards the times and rho cost, as differences between rows.
"""

from __future__ import annotations

import resource

import torch
from common import DEVICE, Variant, against_matmul, free, machine, median_seconds, record, step_parser, training_step

from lwd.runtime.processes import keep_freed_memory

PLAIN = Variant("forward, backward, AdamW")
VARIANTS = (
    PLAIN,
    Variant("+ EMA", ema=True),
    Variant("+ EMA, REPA", ema=True, repa=True),
    Variant("probe step", probe=True),
)


def peak_gib() -> float:
    """Peak memory of the device since the last reset; on the CPU of the whole process, which never falls."""
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Measure and print."""
    arguments = step_parser(__doc__).parse_args()
    if DEVICE == "cpu":
        keep_freed_memory()  # as `Processes` does
    torch.set_float32_matmul_precision("high" if arguments.tf32 else "highest")
    dtype = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
    print(machine())
    print(", ".join(f"{key} {value}" for key, value in vars(arguments).items()))
    columns = (("s", 8), ("images/s", 9), ("TFLOP/s", 8), ("matmul", 8), ("share", 7), ("peak GiB", 9), ("first s", 8))
    print(f"{'step':26s} " + " ".join(f"{name:>{width}s}" for name, width in columns))
    seconds = {}
    for variant in VARIANTS:
        free()
        if DEVICE == "cuda":
            torch.cuda.reset_peak_memory_stats()
        step, flops = training_step(variant, arguments)
        first = median_seconds(step, 1, warm_up=0)
        s, ceiling = against_matmul(step, dtype, arguments.repeats)
        seconds[variant.title] = s
        memory = peak_gib()
        del step
        record(
            variant.title,
            seconds=s,
            images_per_s=arguments.batch / s,
            share=flops / s / ceiling,
            matmul_tflops=ceiling / 1e12,
            peak_gib=memory,
            first_s=first,
        )
        print(
            f"{variant.title:26s} {s:8.4f} {arguments.batch / s:9.1f} {flops / s / 1e12:8.3f} {ceiling / 1e12:8.3f} "
            f"{flops / s / ceiling:7.1%} {memory:9.2f} {first:8.1f}",
            flush=True,
        )
    plain, ema, repa, probe = seconds.values()
    print(
        f"EMA {ema / plain - 1:+.1%} and probe {probe / plain - 1:+.1%} of the plain step, REPA {repa / ema - 1:+.1%}"
    )


if __name__ == "__main__":
    main()
