"""What does learning the schedule cost beside the training it is for?

    python benchmarks/probe_overhead.py --size S --batch 8                         # CPU, float32
    python benchmarks/probe_overhead.py --size XL --batch 256 --precision bf16     # GPU: the ImageNet setting itself

Times a step of the probe (no EMA, no REPA) and one of the training (EMA, REPA), in turns, and sets the paper's probe
(Table 4: 10 000 steps) against its budgets (Section 4.1), both at batch 256: by steps, by the times measured, and by
operations counted at XL, where the REPA head weighs less than in a small network. Loops only: neither start, nor
compilation, nor checkpoints.
"""

from __future__ import annotations

import argparse
import math
import statistics

import torch
from common import (
    CLASSES,
    DEVICE,
    FEATURE_DIM,
    GRID,
    LAYOUT,
    Variant,
    machine,
    median_seconds,
    record,
    step_parser,
    training_step,
)

from lwd.models import create, training_flops
from lwd.runtime.processes import keep_freed_memory
from lwd.stages.probe import ProbeSettings
from lwd.stages.probe.sweep import SweepSettings
from lwd.stages.train import TrainSettings

BUDGETS = (400_000, 1_000_000, 3_000_000)
PROBE = Variant("probe", probe=True)
TRAINING = Variant("training, with EMA and REPA", ema=True, repa=True)
PAPER_STEPS_PER_S = 4.6
PAPER_MINUTES, PAPER_HOURS = 36, 60
TARGET = 0.01


def measured(arguments: argparse.Namespace) -> tuple[float, float]:
    """Median seconds of a probe step and of a training step, measured in turns: machines drift."""
    probe, training = (training_step(variant, arguments)[0] for variant in (PROBE, TRAINING))
    for step in (probe, training):
        median_seconds(step, 1, warm_up=1)
    pairs = [(median_seconds(probe, 1, 0), median_seconds(training, 1, 0)) for _ in range(arguments.repeats)]
    probe_s, training_s = (statistics.median(column) for column in zip(*pairs, strict=True))
    return probe_s, training_s


def counted(size: str) -> float:
    """Operations of a probe step over those of a training step, by count."""
    with torch.device("meta"):
        probe, training = (create(f"LightningDiT-{size}/1", LAYOUT, GRID, CLASSES, dim) for dim in (None, FEATURE_DIM))
    return training_flops(probe) / training_flops(training, project=True)


def table(ratios: dict[str, float]) -> str:
    """The probe by budget; ``ratios``: the cost of a probe step over that of a training step, by how it is known."""
    steps, weights = ProbeSettings().steps, len(SweepSettings().kinetic_weights)
    lines = [
        f"one probe of {steps} steps as a share of training   (target: under {TARGET:.0%})",
        f"{'training steps':>14s} {'by steps':>9s} " + " ".join(f"{name:>18s}" for name in ratios),
    ]
    for budget in BUDGETS:
        by_steps = steps / budget
        shares = [by_steps * ratio for ratio in ratios.values()]
        cells = " ".join(f"{f'{share:.2%}' + ('' if share < TARGET else ' (over)'):>18s}" for share in shares)
        lines.append(f"{budget:14d} {by_steps:9.2%} {cells}")
    lines.append(f"a sweep of the paper's {weights} values of lambda costs {weights} times as much")
    return "\n".join(lines)


def rule(ratio: float) -> str:
    """The same with the probe of Algorithm 1, a hundredth of the steps; ``ratio`` as in `table`."""
    rows = [f"{math.ceil(TARGET * budget)} steps for {budget}" for budget in BUDGETS]
    return f"S_probe = ceil(0.01 S_train), Algorithm 1: {', '.join(rows)}; {TARGET * ratio:.2%} of training's time each"


def main() -> None:
    """Measure and print."""
    arguments = step_parser(__doc__).parse_args()
    if DEVICE == "cpu":
        keep_freed_memory()  # as `Processes` does
    torch.set_float32_matmul_precision("high" if arguments.tf32 else "highest")
    if ProbeSettings().batch != TrainSettings().batch:
        raise SystemExit("the two stages have different batches: shares by steps would mean nothing")
    print(machine())
    print(", ".join(f"{key} {value}" for key, value in vars(arguments).items()))
    probe_s, training_s = measured(arguments)
    ratio, own, xl = probe_s / training_s, counted(arguments.size), counted("XL")
    record(arguments.size, probe_over_training=ratio, counted=own)
    print(f"probe step {probe_s:.4f} s, training step with EMA and REPA {training_s:.4f} s: {ratio:.3f}")
    print(f"operations by count: {own:.3f} at {arguments.size}, {xl:.3f} at XL")
    print(table({f"measured, {arguments.size}": ratio, "counted, XL": xl}))
    print(rule(ratio))
    print(
        f"the paper, XL on two B200: {PAPER_MINUTES} minutes of {PAPER_HOURS} hours for 1M steps, "
        f"{PAPER_MINUTES / 60 / PAPER_HOURS:.2%}; {ProbeSettings().steps / PAPER_MINUTES / 60:.2f} probe steps/s, "
        f"{PAPER_STEPS_PER_S} training steps/s"
    )


if __name__ == "__main__":
    main()
