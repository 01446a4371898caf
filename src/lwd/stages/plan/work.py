"""The work of each stage, in operations of matrix products (a multiply-add is two), counted without any weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lwd.datasets.builtin import DATASETS
from lwd.encoders.semvae import SemVAE
from lwd.encoders.vae import DIFFUSERS, SDVAE, Autoencoder, blank_autoencoder, blank_vae
from lwd.encoders.vision import VISION_MODELS, blank_patch_encoder
from lwd.errors import UserError
from lwd.models.flops import BACKWARD
from lwd.models.record import read_record
from lwd.models.settings import ModelConfig
from lwd.ode.methods import method
from lwd.probe.bisection import Bisection
from lwd.runtime.hub import CONFIG
from lwd.stages.encode.settings import NONE, SAME, TRANSFORMERS, TextureSettings
from lwd.stages.evaluate.settings import JUDGED, PAPER, features_of
from lwd.stages.experiment import Experiment
from lwd.stages.plan.facts import Data

DOPRI5_EVALUATIONS = 100
"""Assumed of the adaptive solver for one sample; it took 40 to 55 on the digits (README)."""
INCEPTION = 11_426_464_960
"""Operations of Inception for one image of any size, counted with `torch.utils.flop_counter`."""


@dataclass(frozen=True)
class Work:
    """What a stage does: ``operations``, None where they cannot be counted; ``steps`` of training among them;
    ``again``: operations done for a second time, by activation checkpointing; ``counted`` in the sum, which
    has one way to a schedule alone; ``float32``: done in that whatever ``compute.precision`` is."""

    stage: str
    what: str
    operations: float | None
    steps: int = 0
    again: float = 0
    counted: bool = True
    float32: bool = False


def work_of(config: Experiment, data: Data) -> Iterator[Work]:
    """Each stage's work, in the order in which they are run."""
    yield _encode(config, data)
    yield from _search(config, data)
    yield from _train(config, data)
    yield _sample(config, data)
    yield _evaluate(config, data)


def _encode(config: Experiment, data: Data) -> Work:
    each, images = _encoders(config, data), None
    if data.images is not None:
        images = data.images + (data.heldout or 0)
    twins = 2 if config.data.flip else 1
    what = "an unknown number of images" if images is None else f"{images:,} images" + (", twice" if twins == 2 else "")
    return Work("encode", what, None if each is None or images is None else float(twins * images * each))


def _encoders(config: Experiment, data: Data) -> int | None:
    """Operations of one image through all encoders; those trained on the spot count for nothing, being small. None
    where they cannot be counted: without the packages, for transformers' models, and where pictures do not fit."""
    settings, total = config.encode, 0
    names = [part.encoder for part in settings.others]
    if settings.repa.encoder not in (SAME, NONE, settings.semantic.encoder):
        names.append(settings.repa.encoder)
    if data.pixels is None or TRANSFORMERS in names:
        return None
    pixels = (1, *data.pixels)
    try:
        if (texture := _pretrained(settings.texture)) is not None:
            total += _counted(lambda: texture.encode, pixels)
        for name in names:
            if name in VISION_MODELS:
                total += _counted(partial(_patch_features, name), pixels)
        for part in settings.others:
            if part.compress == "semvae" and part.encoder in VISION_MODELS:
                width, channels = VISION_MODELS[part.encoder].width, _channels(config, part.group)
                total += _counted(partial(_compress, width, channels), (1, width, *data.shape))
    except UserError:  # the packages of pretrained encoders are an extra, and `lwd encode` says what does not fit
        return None
    return total


def _pretrained(texture: TextureSettings) -> Autoencoder | None:
    """The pretrained autoencoder, without weights; None: another encoder. Raises UserError where it is not known."""
    if texture.encoder == DIFFUSERS:
        return blank_autoencoder(texture.path)
    return SDVAE.blank() if texture.encoder == "sd-vae-f16d32" else None


def _channels(config: Experiment, name: str) -> int:
    return next(group.channels for group in config.groups if group.name == name)


def _patch_features(name: str) -> Callable[[Tensor], object]:
    return blank_patch_encoder(name).patch_features


def _compress(width: int, channels: int) -> Callable[[Tensor], object]:
    return SemVAE(width, channels).encode


def _counted(make: Callable[[], Callable[[Tensor], object]], shape: tuple[int, ...]) -> int:
    """Operations of one call, on the meta device. Raises UserError for a shape that does not go through."""
    with torch.device("meta"):
        run, x = make(), torch.zeros(shape)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            try:
                run(x)
            except (ValueError, RuntimeError, IndexError) as error:  # a config.json may say anything
                raise UserError(f"{tuple(shape)} cannot be encoded or decoded ({error})") from error
    return int(counter.get_total_flops())


def _search(config: Experiment, data: Data) -> Iterator[Work]:
    """One probe, and the sweep or the map; nothing where there is one group, or train's schedule is a fixed one."""
    if len(config.groups) == 1 or config.train.schedule.kind != "learned":
        return
    probe, path = config.probe, config.train.schedule.path
    each = config.model.training_flops(config.layout, data.shape)
    once = None if each is None else float(probe.steps * probe.batch * each)
    alone = path is not None and path.parent == config.output / "probe"  # train takes the probe's, not the sweep's
    yield Work("probe", f"{probe.steps:,} steps of {probe.batch}", once, probe.steps, _again(config, once), alone)
    if config.sweep.method == "map":
        m, forward = config.map, _of_forward(config.model, config, data)
        passes = 2 * m.images * m.noises * m.points**2
        what = f"{passes:,} evaluations of a network of joint times, on which the sweep is done"
        yield Work("map", what, None if forward is None else float(passes * forward), counted=not alone)
        return
    search, seeds = config.sweep.search, len(config.sweep_seeds)
    if isinstance(search, Bisection):  # both ends, then halves
        words, tried = "about", 2 + math.ceil(math.log2(search.cells))
    else:
        words, tried = "at most" if config.sweep.early_stop else "", len(config.sweep.kinetic_weights)
    count = seeds * tried
    total = None if once is None else count * once
    what = f"{words} {count} probes".strip()
    yield Work("sweep", what, total, count * probe.steps, _again(config, total), not alone)


def _train(config: Experiment, data: Data) -> Iterator[Work]:
    train = config.train
    features = data.feature_dim if train.repa_weight > 0 else None
    each = config.model.training_flops(config.layout, data.shape, features)
    total = None if each is None else float(train.steps * train.batch * each)
    epochs = "" if data.images is None else f" ({train.steps * train.batch / data.images:,.1f} epochs)"
    yield Work("train", f"{train.steps:,} steps of {train.batch}{epochs}", total, train.steps, _again(config, total))
    compare = config.compare
    if compare.variants and compare.budgets:
        runs, steps = len(compare.variants) * len(compare.seeds), max(compare.budgets)
        every = None if each is None else float(runs * steps * train.batch * each)
        what = f"lwd demo: {runs} runs of {steps:,} steps"
        yield Work("compare", what, every, runs * steps, _again(config, every), counted=False)


def _again(config: Experiment, operations: float | None) -> float:
    """Of a step's three parts activation checkpointing does the forward one twice."""
    return (operations or 0) / 3 if config.compute.activation_checkpointing else 0.0


def _sample(config: Experiment, data: Data) -> Work:
    s = config.sample
    count = DOPRI5_EVALUATIONS if s.solver == "dopri5" else s.steps * method(s.solver).evaluations
    each, decoding = _of_forward(config.model, config, data), _decoding(config, data)
    kind, networks = s.guidance.kind, "unguided"
    if each is not None and kind != "none":
        networks, more = _guides(config, data, each)
        each += more
    assumed = "an assumed " if s.solver == "dopri5" else ""
    what = f"{s.num:,} images, {assumed}{count} evaluations each, {networks}"
    what += "" if decoding is not None else ", decoding not counted"
    return Work("sample", what, None if each is None else float(s.num * (count * each + (decoding or 0))))


def _decoding(config: Experiment, data: Data) -> int | None:
    """Operations of one image, by a pretrained autoencoder; None where they cannot be counted."""
    chosen = config.sample.decoder
    try:
        vae = _pretrained(config.encode.texture) if chosen is None else blank_vae(chosen.path)
        return 0 if vae is None else _counted(lambda: vae.decode, (1, vae.channels, *data.shape))
    except UserError:  # the packages are an extra; an id of the Hub may be out of reach
        return None


def _guides(config: Experiment, data: Data, each: int) -> tuple[str, int]:
    """What guidance evaluates beside the network, in words and operations."""
    guidance, more, words = config.sample.guidance, 0, []
    if guidance.kind in ("classifier_free", "both"):
        more, words = more + each, ["no class"]
    if guidance.kind in ("auto", "both"):
        weak = _weak(guidance.weak, config, data)
        more += each if weak is None else weak
        words.append("a weak network" + (" (not here: counted as large as the other)" if weak is None else ""))
    return f"guided by {' and '.join(words)}", more


def _weak(folder: Path | None, config: Experiment, data: Data) -> int | None:
    """Operations of the weak network, whose record is read."""
    tried = () if folder is None else (folder / "ema", folder)
    found = next((place for place in tried if (place / CONFIG).is_file()), None)
    if found is None:
        return None
    record = read_record(found)
    sizes = ("depth", "width", "heads")
    if record.network is not None or not all(isinstance(record.arguments.get(size), int) for size in sizes):
        return None
    model = ModelConfig.model_validate(
        {"name": "LightningDiT-B/1", "num_classes": record.num_classes, **{s: record.arguments[s] for s in sizes}}
    )
    return _of_forward(model, config, data)


def _evaluate(config: Experiment, data: Data) -> Work:
    e = config.evaluate
    metrics = e.metrics or (PAPER if e.reference is not None or not _built_in(config) else JUDGED)
    networks = {features_of(metric) for metric in metrics}
    each = 0
    if "inception" in networks:
        each += INCEPTION
    if "dinov2" in networks:
        try:
            each += _counted(lambda: blank_patch_encoder("dinov2-l").patch_features, (1, 3, 256, 256))
        except UserError:
            return Work("evaluate", "needs lwd[encoders] to be counted", None)
    images = config.sample.num + (data.heldout or 0)
    return Work(
        "evaluate", f"{images:,} images through {', '.join(sorted(networks))}", float(images * each), float32=True
    )


def _built_in(config: Experiment) -> bool:
    return config.encode.dataset in DATASETS


def _of_forward(model: ModelConfig, config: Experiment, data: Data) -> int | None:
    """Operations of one image."""
    each = model.training_flops(config.layout, data.shape)
    return None if each is None else each // (1 + BACKWARD)
