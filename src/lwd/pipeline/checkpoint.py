"""The components of a pipeline, from a trained checkpoint and the data that it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lwd.data.encoded import MANIFEST, Manifest, read_manifest
from lwd.data.shards import shard_key
from lwd.data.stats import load_stats, stats_path
from lwd.encoders.decoder import load_decoder
from lwd.encoders.small_vae import SMALL_VAE, SmallVAE
from lwd.encoders.vae import SDVAE
from lwd.errors import UserError
from lwd.groups import Layout
from lwd.models import LightningDiT
from lwd.models.pretrained import load_checkpoint_model, weights_folder
from lwd.models.record import read_record
from lwd.pipeline.scheduler import LwdScheduler
from lwd.pipeline.transformer import LwdTransformer
from lwd.pipeline.vae import LwdVAE
from lwd.runtime.checkpoint import STATE, read_state
from lwd.schedules import Schedule


def read_components(checkpoint: Path, data: Path, vae: str | Path | SDVAE | None, weak: Path | None) -> dict[str, Any]:
    """The arguments of `LwdPipeline`; its ``decoded_group`` is None where ``data`` has no manifest.

    Raises UserError for whatever is missing, and for a model, data and weak model that were not made for each other.
    """
    model, schedule = _load(checkpoint)
    manifest = read_manifest(data) if (data / MANIFEST).is_file() else None
    if manifest is not None:
        _check_data(checkpoint, data, manifest.fingerprint)
    weak_model = None
    if weak is not None:
        weak_model, weak_schedule = _load(weak)
        if weak_schedule.hash() != schedule.hash():
            raise UserError(f"{weak}: the weak model was trained under another schedule than the main one")
    mean, std = _statistics(data / "train", model.layout)
    return {
        "transformer": LwdTransformer.from_network(model),
        "vae": _vae(data, vae, manifest),
        "scheduler": LwdScheduler.from_schedule(schedule, mean, std),
        "weak_transformer": None if weak_model is None else LwdTransformer.from_network(weak_model),
        "decoded_group": None if manifest is None else manifest.texture.group,
    }


def _load(checkpoint: Path) -> tuple[LightningDiT, Schedule]:
    """Raises UserError where it holds another network, which diffusers could not load again."""
    own = read_record(weights_folder(checkpoint)).network
    if own is not None:
        raise UserError(f"{checkpoint}: holds a network of {own!r}, a pipeline only a LightningDiT; use lwd sample")
    model, schedule = load_checkpoint_model(checkpoint)
    assert isinstance(model, LightningDiT)
    return model, schedule


def _check_data(checkpoint: Path, data: Path, present: str) -> None:
    """Raise UserError where a training checkpoint says that it is of other data; an exported one does not say."""
    if not (checkpoint / STATE).is_file():
        return
    trained_on = read_state(checkpoint).recipe.get("data")
    if trained_on != present:
        raise UserError(f"{checkpoint}: trained on data {trained_on}, {data} is {present}")


def _statistics(folder: Path, layout: Layout) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (1, C, 1, 1), channels in layout order."""
    stats = [load_stats(stats_path(folder, shard_key(group)), group.channels) for group in layout.groups]
    mean, std = (torch.cat(parts, dim=1) for parts in zip(*stats, strict=True))
    return mean, std


def _vae(data: Path, vae: str | Path | SDVAE | None, manifest: Manifest | None) -> Any:
    """The one given, else the one in the manifest, as a component of a pipeline."""
    if isinstance(vae, SDVAE):
        return vae.model
    if vae is not None:
        return SDVAE.load(vae).model
    if manifest is None:
        raise UserError(f"{data}: no {MANIFEST}, so no VAE is known; give vae, its weights or its folder")
    encoder = load_decoder(data).encoder
    if isinstance(encoder, SmallVAE):
        return LwdVAE.from_network(encoder)
    if not isinstance(encoder, SDVAE):
        raise UserError(
            f"{data}: is decoded by {type(encoder).__name__}; a pipeline needs data of the SD-VAE or of {SMALL_VAE}"
        )
    return encoder.model
