"""Does the real command train as fast as the bare step? `lwd train` on shards on disk against `train_step.py`'s loop.

    python benchmarks/end_to_end.py --size S --batch 8 --steps 30 --images 1000                    # CPU
    python benchmarks/end_to_end.py --size XL --batch 256 --steps 300 --precision bf16              # GPU

Random latents with SFD's geometry and statistics, features and twins included (885 kB per image), are written to a
temporary folder; `lwd train` runs on them in a process of its own, with REPA, EMA, log, guard and one checkpoint at the
end. Its images/s are the mean of its log's blocks but the first; the bare step (forward, backward, AdamW, EMA, REPA, on
one batch that stays on the device) is measured before and after it. The last line is their ratio.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import DEVICE, Variant, free, machine, median_seconds, record, step_parser, training_step
from loader import write_data

from lwd.runtime.processes import keep_freed_memory
from lwd.training.logging import read_log

BLOCK = 10
"""Steps per block of the log."""


def main() -> None:
    """Measure and print."""
    parser = step_parser(__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--images", type=int, default=4000, help="885 kB each")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    arguments = parser.parse_args()
    if DEVICE == "cpu":
        keep_freed_memory()  # as `Processes` does
    print(machine())
    print(", ".join(f"{key} {value}" for key, value in vars(arguments).items()))
    before = bare(arguments)
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="lwd-end-to-end-") as name:
        (folder := Path(name) / "data" / "train").mkdir(parents=True)
        write_data(folder, arguments.images)
        rates, waits = command(Path(name), arguments)
    after = bare(arguments)
    step, whole = statistics.mean([before, after]), statistics.mean(rates)
    record(arguments.size, bare=step, lwd_train=whole, ratio=whole / step, data_wait=statistics.mean(waits))
    print(f"bare step: {before:.2f} and {after:.2f} images/s; lwd train: {whole:.2f} images/s over {len(rates)} blocks")
    print(f"data wait {statistics.mean(waits):.2%}; lwd train / bare step: {whole / step:.3f}")


def bare(arguments: object) -> float:
    """images/s of the step alone."""
    step, _ = training_step(Variant("", ema=True, repa=True), arguments)
    rate = arguments.batch / median_seconds(step, arguments.repeats)
    del step
    free()  # `lwd train` needs the card's memory next, in a process of its own
    return rate


def command(output: Path, arguments: object) -> tuple[list[float], list[float]]:
    """images/s and the share of time spent waiting for data, by block of the log."""
    settings = [
        "groups=[{name: tex, channels: 32}, {name: sem, channels: 16, weight: 2}]",
        "leader=sem",
        f"output={output}",
        f"model={{name: LightningDiT-{arguments.size}/1, num_classes: 1000}}",
        f"train={{batch: {arguments.batch}, steps: {arguments.steps}, schedule: {{kind: offset}}}}",
        f"compute={{precision: {arguments.precision!r}, tf32: {str(arguments.tf32).lower()}, log_every: {BLOCK}}}",
        f"compute.compile={str(arguments.compile).lower()}",
        f"compute.activation_checkpointing={str(arguments.checkpointing).lower()}",
        "compute.checkpoint_every=0",
    ]
    config = output / "config.yaml"
    config.write_text("{}")
    subprocess.run([sys.executable, "-m", "lwd", "train", "-c", str(config), *settings], check=True)  # noqa: S603
    blocks = [line for line in read_log(output / "train" / "learned" / "trace.jsonl") if "images_per_s" in line][1:]
    return [line["images_per_s"] for line in blocks], [line["data_wait"] for line in blocks]


if __name__ == "__main__":
    main()
