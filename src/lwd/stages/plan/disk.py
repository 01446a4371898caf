"""Bytes that the stages leave on disk."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lwd.planning import Count
from lwd.planning.memory import FLOAT32, MOMENTS
from lwd.stages.experiment import Experiment
from lwd.stages.plan.facts import Data
from lwd.stages.plan.units import size

FLOAT16, LABEL = 2, 8
"""Bytes of one number of REPA's features, and of one label."""


@dataclass(frozen=True)
class Disk:
    """``bytes`` of one kind of files, None where that is not known; ``what`` they are."""

    name: str
    what: str
    bytes: int | None


def disk_of(config: Experiment, data: Data, trained: Count, probed: Count) -> list[Disk]:
    """Shards, checkpoints of the main run and of the probes, samples."""
    return [_shards(config, data), _checkpoints(config, trained), _probes(config, probed), _samples(config, data)]


def _shards(config: Experiment, data: Data) -> Disk:
    sizes = [group.channels * math.prod(data.shape if group.shape is None else group.shape) for group in config.groups]
    features = 0 if data.features is None else FLOAT16 * math.prod(data.features)
    twins = 2 if config.data.flip else 1
    each = twins * (FLOAT32 * sum(sizes) + features) + LABEL
    parts = "latents" + (", features" if features else "") + (", mirrored twins" if twins == 2 else "")
    images = None if data.images is None else data.images + (data.heldout or 0)
    return Disk("shards", f"{parts}: {each:,} bytes an image", None if images is None else images * each)


def _checkpoints(config: Experiment, count: Count) -> Disk:
    """The periodic ones that are kept, those that are kept for good, and one that is being written."""
    compute, train = config.compute, config.train
    good = {step for step in train.checkpoint_steps if step <= train.steps}
    periodic = set(range(compute.checkpoint_every, train.steps + 1, compute.checkpoint_every or train.steps + 1))
    periodic = (periodic | {train.steps}) - good
    newest = sorted(periodic)[-compute.keep_checkpoints :] if compute.keep_checkpoints else periodic
    number = len(good) + len(newest) + 1
    networks = 2 + len(train.posthoc_ema)  # weights and averages
    each = FLOAT32 * (networks * count.parameters + MOMENTS * count.trained)
    snapshots = len(train.posthoc_ema) * math.ceil(train.steps / train.posthoc_every)
    width = FLOAT16 if train.posthoc_dtype == "float16" else FLOAT32
    words = f"{number} of {size(each)}, one of them being written"
    more = f"; {snapshots} snapshots of averages" if snapshots else ""
    return Disk("checkpoints", words + more, number * each + snapshots * width * count.parameters)


def _probes(config: Experiment, count: Count) -> Disk:
    """Of one lambda's probe: a sweep keeps those of every lambda."""
    compute, steps = config.compute, config.probe.steps
    every = compute.checkpoint_every
    number = min(compute.keep_checkpoints or steps, math.ceil(steps / every) if every else 1)
    each = FLOAT32 * (count.parameters + MOMENTS * count.trained)
    return Disk("probe checkpoints", f"{number} of {size(each)} for each lambda", number * each)


def _samples(config: Experiment, data: Data) -> Disk:
    s, total, words = config.sample, 0, []
    if "latents" in s.formats:
        total += s.num * FLOAT32 * config.layout.channels * math.prod(data.shape)
        words.append("latents")
    if data.pixels is None:
        return Disk("samples", "pixels are not known", total or None)
    pixels = 3 * math.prod(data.pixels[1:]) * s.num
    for name in s.formats:
        if name != "latents":
            total += 2 * pixels if name == "npz" else pixels
            words.append("npz, and as much while it is put together" if name == "npz" else f"{name}, at most")
    return Disk("samples", f"{s.num:,} images: {', '.join(words)}", total)
