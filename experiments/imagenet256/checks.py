"""What a command of the page must have left, beyond an exit code of 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml

from lwd.config import dump
from lwd.data.samples import INFO, NPZ, SHEET, SampleSet
from lwd.encoders.semvae import load_semvae
from lwd.files import read_json
from lwd.images.npz import read_npz
from lwd.models import LightningDiT
from lwd.runtime.hub import WEIGHTS
from lwd.schedules import Schedule
from lwd.stages.evaluate.settings import PAPER
from lwd.stages.experiment import Experiment
from lwd.stages.train import choose_schedule

GRID, PIXELS = 16, 256


class Wrong(Exception):  # noqa: N818 - what it says of a command
    """A command ended well and did not leave what it should."""


def require(holds: bool, complaint: str) -> None:
    """Raise Wrong unless it holds."""
    if not holds:
        raise Wrong(complaint)


def trace(config: Experiment) -> Path:
    """The log of a training run."""
    return config.output / "train" / config.train.name / "trace.jsonl"


def encoded(config: Experiment, images: dict[str, int]) -> str:
    """Every image of both splits, on ImageNet's grid, with features."""
    for split, count in images.items():
        shards = config.shards(split, features=True)
        require(len(shards) == count, f"{shards.path}: {len(shards)} images of {count}")
        require(shards.shape == (GRID, GRID), f"{shards.path}: a grid of {shards.shape}")
        require(shards.feature_dim is not None, f"{shards.path}: no features")
    return f"{config.data_path}: {' + '.join(map(str, images.values()))} images, {GRID}x{GRID}"


def semvae(config: Experiment) -> str:
    """A SemVAE that loads, and its measurements."""
    folder = config.output / "semvae"
    model, results = load_semvae(folder / "model"), read_json(folder / "heldout.json")
    require(model.channels == config.semvae.channels, f"{folder}: {model.channels} channels")
    require(results[-1]["step"] == config.semvae.steps, f"{folder}: last measured at step {results[-1]['step']}")
    return f"{folder / 'model'}: held-out cosine {results[-1]['cosine']:.3f}"


def probed(config: Experiment) -> str:
    """A schedule of the recipe's groups, learned at its lambda."""
    path = config.output / "probe" / "schedule.json"
    schedule = Schedule.load(path)
    schedule.check(config.layout, str(path))
    found = schedule.provenance["lambda"]
    require(found == config.probe.kinetic_weight, f"{path}: lambda {found}")
    return f"{path}: lambda {found:g}"


def swept(config: Experiment) -> str:
    """A schedule of one of the lambdas, and a row for each."""
    path, table = config.output / "schedule.json", config.output / "sweep" / "table.json"
    found, weights = Schedule.load(path).provenance["lambda"], config.sweep.kinetic_weights
    require(weights == "auto" or found in weights, f"{path}: lambda {found}")
    folders = len(list((config.output / "sweep").glob("lambda-*")))
    require(table.is_file(), f"{table}: missing")
    require(weights == "auto" or folders == len(weights), f"{table.parent}: {folders} probes")
    return f"{path}: lambda {found:g} of {folders}"


def trained(config: Experiment, before: bytes) -> str:
    """The last checkpoint, those to be kept, one line of log a step, and the steps of ``before`` not done again."""
    settings, log = config.train, trace(config)
    folder = log.parent
    for step in {settings.steps, *(s for s in settings.checkpoint_steps if s <= settings.steps)}:
        checkpoint = folder / f"step-{step:08d}"
        for name in ("model", "ema"):
            require((checkpoint / name / WEIGHTS).is_file(), f"{checkpoint}: no {name}")
    last = folder / f"step-{settings.steps:08d}"
    same = Schedule.load(last / "schedule.json").hash() == choose_schedule(config).hash()
    require(same, f"{last}: another schedule than the recipe's")
    lines = log.read_bytes()
    done, total = before.count(b"\n"), lines.count(b"\n")
    require(lines.startswith(before), f"{log}: the first {done} steps were done again")
    require(total == settings.steps, f"{log}: {total} lines for {settings.steps} steps")
    return f"{last}" + (f", going on from step {done}" if done else "")


def sampled(config: Experiment) -> str:
    """An npz in ADM's form with the classes in turn, a sheet, and what wrote them."""
    settings, found = config.sample, sorted((config.output / "samples").glob(f"*/{INFO}"), key=_age)
    folder = config.output / "samples" / settings.name if settings.name else found[-1].parent
    arrays, samples = read_npz(folder / NPZ), SampleSet.read(folder)
    images, labels = arrays["arr_0"], arrays["arr_1"]
    shape = (settings.num, PIXELS, PIXELS, 3)
    require(images.shape == shape and images.dtype == np.uint8, f"{folder / NPZ}: {images.dtype} {images.shape}")
    require(bool(images.std(axis=(1, 2, 3)).min() > 0), f"{folder / NPZ}: an image of one colour")
    in_turn = np.arange(settings.num) % config.model.num_classes
    require(np.array_equal(labels, in_turn), f"{folder / NPZ}: labels {labels}")
    require((folder / SHEET).is_file(), f"{folder / SHEET}: missing")
    for info in found:  # other networks, or other guidance
        same = info.parent != folder and np.array_equal(read_npz(info.parent / NPZ)["arr_0"], images)
        require(not same, f"{folder / NPZ}: the images of {info.parent.name}")
    return f"{folder / NPZ}: {images.shape}, {float(samples.nfe.double().mean()):.0f} evaluations each"


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns


def averaged(words: tuple[str, ...]) -> str:
    """A checkpoint of `lwd ema`, in ``--out`` or beside the run."""
    run = Path(words[1])
    out = words[words.index("--out") + 1] if "--out" in words else f"{run}-sigma-*"
    found = list(Path().glob(f"{out}/step-*/ema/{WEIGHTS}"))
    require(bool(found), f"{out}: no average there")
    return str(found[0].parents[1])


def exported(words: tuple[str, ...]) -> str:
    """A folder that loads by itself."""
    folder = Path(words[2])
    model, schedule = LightningDiT.from_pretrained(folder), Schedule.load(folder / "schedule.json")
    schedule.check(model.layout, str(folder))
    return f"{folder}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters"


def printed(config: Experiment, output: str) -> str:
    """The resolved config, and nothing else."""
    require(yaml.safe_load(output) == yaml.safe_load(dump(config)), "another config was printed")
    return "printed its config"


def evaluated(words: tuple[str, ...], config: Experiment | None, output: str) -> str:
    """A record beside the samples, or where those of a checkpoint would be; the metrics of the paper, all numbers."""
    record = Path(words[1]) / "evaluation.json"
    if config is not None:
        record = config.output / "samples" / f"{config.sample.name}.evaluation.json"
    require(record.is_file(), f"{record}: missing")
    values = read_json(record)["metrics"]
    require(set(PAPER) <= values.keys(), f"{record}: only {sorted(values)}")
    require(all(math.isfinite(value) for value in values.values()), f"{record}: {values}")
    require("fid" in output.lower(), "printed no FID")
    return f"{record}: " + ", ".join(f"{name} {value:.3g}" for name, value in values.items())


OF_CONFIG: dict[str, Callable[[Experiment], str]] = {
    "semvae": semvae,
    "probe": probed,
    "sweep": swept,
    "sample": sampled,
}
