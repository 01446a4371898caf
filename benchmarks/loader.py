"""How fast does the loader read, against a plain sequential copy of the same bytes in the same run?

    OMP_NUM_THREADS=1 python benchmarks/loader.py                # rows with and without features, and the ceiling
    OMP_NUM_THREADS=1 python benchmarks/loader.py --consume      # can it feed 4.6 steps/s of 256 images?

SFD's shard geometry: 1000 images per file, latents 32 x 16 x 16 and 16 x 16 x 16 in float32, features 768 x 16 x 16 in
float16, each with its mirrored twin; 885 kB per image, of which a sample reads half. Everything is in the page cache.

The ceiling copies contiguous runs of 256 images out of the mapped files, with torch and with NumPy (the faster one
counts), into memory that is allocated once: two sets of buffers in turn, as a training loop holds one batch while the
next is read. The loader delivers random images and twins, standardised, in the order asked for. The rounds of all rows
alternate; medians.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lwd.data import LatentShards, StepBatches, write_shard
from lwd.data.format import open_shard
from lwd.data.stats import save_stats, stats_path
from lwd.groups import Group, Layout
from lwd.training.loading import read_ahead

LAYOUT = Layout([Group("tex", 32), Group("sem", 16)])
KEYS, FEATURES = ("latents", "latents_sv"), "feats_dino"
SHARD_IMAGES, BATCH = 1000, 256
XL_STEPS_PER_S = 4.6


def write_data(folder: Path, images: int) -> None:
    """Shards of random values in SFD's geometry."""
    for number, start in enumerate(range(0, images, SHARD_IMAGES)):
        n = min(SHARD_IMAGES, images - start)
        generator = torch.Generator().manual_seed(number)

        def draw(channels: int, n: int = n, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(n, channels, 16, 16, generator=generator)

        plain, twins = ({"tex": draw(32), "sem": draw(16)} for _ in range(2))
        labels = torch.randint(0, 1000, (n,), generator=generator)
        path = folder / f"latents_rank00_shard{number:03d}.safetensors"
        write_shard(path, LAYOUT, plain, labels, twins, draw(768), draw(768))
    for key, channels in zip(KEYS, (32, 16), strict=True):
        save_stats(stats_path(folder, key), torch.full((1, channels, 1, 1), 0.5), torch.full((1, channels, 1, 1), 2.0))


def sequential_copy(folder: Path, features: bool, copy: Callable[[Tensor, Tensor], object]) -> Callable[[], None]:
    """A function that copies the next 256 images, file after file, twins included."""
    shards = [open_shard(file) for file in sorted(folder.glob("*.safetensors"))]
    keys = [*KEYS, FEATURES] if features else [*KEYS]
    buffers = cycle([{key: torch.empty_like(shards[0][key][:BATCH]) for key in keys} for _ in range(2)])

    def runs() -> Iterator[tuple[dict[str, Tensor], str, slice]]:
        while True:
            for shard in shards:
                for suffix in ("", "_flip"):
                    for start in range(0, len(shard["labels"]) - BATCH + 1, BATCH):
                        yield dict(shard), suffix, slice(start, start + BATCH)

    position = runs()

    def one_batch() -> None:
        (shard, suffix, rows), buffer = next(position), next(buffers)
        for key in keys:
            copy(buffer[key], shard[key + suffix][rows])

    return one_batch


def step_batches(shards: LatentShards) -> Callable[[], object]:
    """A function that reads the next training step's batch, draws of order and flips included, and holds it."""
    batches, step, held = StepBatches(shards, BATCH, seed=0), iter(range(10**9)), [None]

    def one_batch() -> None:
        held[0] = batches[next(step)]

    return one_batch


def dataloader(shards: LatentShards, workers: int) -> Callable[[], object]:
    """A function that takes the next batch of torch's own DataLoader, epoch after epoch."""

    def batches() -> Iterator[object]:
        loader = DataLoader(
            shards, BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
        )
        while True:
            yield from loader

    position, held = batches(), [None]

    def one_batch() -> None:
        held[0] = next(position)

    return one_batch


def rates(rows: dict[str, Callable[[], object]], rounds: int, batches: int) -> dict[str, float]:
    """Samples/s of each row: medians over rounds that alternate between the rows."""
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(rounds + 1):
        for name, row in rows.items():
            start = time.perf_counter()
            for _ in range(batches):
                row()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: batches * BATCH / statistics.median(times) for name, times in seconds.items()}


def compare(folder: Path, features: bool, rounds: int, batches: int) -> None:
    """One table: the loader's rows, as shares of the ceiling."""
    shards = LatentShards(folder, LAYOUT, features=features)
    for start in range(0, len(shards), BATCH):  # every page into the cache, every value seen once
        images = torch.arange(start, min(start + BATCH, len(shards)))
        for twin in (False, True):
            shards.read(images, torch.full((len(images),), twin))
    kilobytes = (48 * 256 * 4 + features * 768 * 256 * 2) / 1000
    rows: dict[str, Callable[[], object]] = {
        "sequential copy, torch": sequential_copy(folder, features, lambda out, x: out.copy_(x)),
        "sequential copy, NumPy": sequential_copy(folder, features, lambda out, x: np.copyto(out.numpy(), x.numpy())),
        "StepBatches, random": step_batches(shards),
        "DataLoader, shuffled": dataloader(shards, 0),
    }
    measured = rates(rows, rounds, batches)
    # Worker processes keep reading ahead: they are measured by themselves, or they would slow the other rows.
    measured |= rates({"DataLoader, 2 workers": dataloader(shards, 2)}, max(rounds // 4, 3), batches)
    ceiling = max(rate for name, rate in measured.items() if name.startswith("sequential"))
    print(f"\n{'with' if features else 'without'} features: {kilobytes:.0f} kB per sample")
    for name, rate in measured.items():
        speed = f"{rate:9.0f} samples/s {rate * kilobytes / 1e6:6.1f} GB/s"
        print(f"  {name:24s} {speed} {rate / ceiling:6.1%} of the ceiling")


def consume(folder: Path, features: bool, workers: int | None, steps: int) -> None:
    """Feed a consumer that works for 1 / 4.6 s on 256 images: its steps/s, and the share of time spent waiting."""
    batches = StepBatches(LatentShards(folder, LAYOUT, features=features), BATCH, seed=0)
    if workers is None:
        loader = read_ahead(batches.__getitem__, range(steps + 3))
    else:
        loader = iter(DataLoader(batches, batch_size=None, sampler=range(steps + 3), num_workers=workers))
    for _ in range(3):
        held = next(loader)
    waited, began = 0.0, time.perf_counter()
    for _ in range(steps):
        start = time.perf_counter()
        held = next(loader)
        waited += time.perf_counter() - start
        time.sleep(1 / XL_STEPS_PER_S)
        del held
    total = time.perf_counter() - began
    what = "with features" if features else "without      "
    how = "a thread " if workers is None else f"{workers} workers"
    print(
        f"  {what}, {how}: {steps / total:.2f} steps/s = {steps * BATCH / total:.0f} samples/s, "
        f"data wait {waited / total:.2%}"
    )


def main() -> None:
    """Write the data, measure, remove it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="885 kB each; default 2000, 1.8 GB")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batches", type=int, default=6, help="batches per round and row")
    parser.add_argument("--consume", action="store_true", help="feed a consumer of 4.6 steps/s instead")
    parser.add_argument("--steps", type=int, default=40, help="steps of the consumer")
    args = parser.parse_args()
    if args.images < BATCH:
        parser.error(f"--images must be at least {BATCH}")
    print(f"{platform.machine()}, torch {torch.__version__}, threads {torch.get_num_threads()}, {args.images} images")
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="lwd-loader-") as name:
        write_data(Path(name), args.images)
        for features in (True, False):
            if args.consume:
                for workers in (None, 0, 1, 2):
                    consume(Path(name), features, workers, args.steps)
            else:
                compare(Path(name), features, args.rounds, args.batches)


if __name__ == "__main__":
    main()
