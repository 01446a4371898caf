"""The components of a pipeline, from a trained checkpoint and the data that it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lwd.data.encoded import MANIFEST, Manifest, read_manifest
from lwd.data.stats import Statistics
from lwd.encoders.decoder import CARRIED, check_data, load_decoder
from lwd.encoders.vae import Autoencoder, load_vae
from lwd.errors import UserError
from lwd.groups import Layout
from lwd.models import LightningDiT
from lwd.models.pretrained import load_checkpoint_model, weights_folder
from lwd.models.record import read_record
from lwd.pipeline.scheduler import LwdScheduler
from lwd.pipeline.transformer import LwdTransformer
from lwd.pipeline.vae import LwdVAE
from lwd.schedules import Schedule


def read_components(
    checkpoint: Path, data: Path | None, vae: str | Path | Autoencoder | None, weak: Path | None
) -> dict[str, Any]:
    """The arguments of `LwdPipeline`; its ``decoded_group`` is None where ``data`` has no manifest. ``data`` None: what
    the checkpoint carries.

    Raises UserError for whatever is missing, and for a model, data and weak model that were not made for each other.
    """
    model, schedule = _load(checkpoint)
    if data is None:
        data = checkpoint / CARRIED
        if not data.is_dir():
            raise UserError(f"{checkpoint}: carries no statistics; give data, the folder that it was trained on")
    manifest = read_manifest(data) if (data / MANIFEST).is_file() else None
    if manifest is not None:
        check_data(checkpoint, data)
    weak_model = None
    if weak is not None:
        weak_model, weak_schedule = _load(weak)
        if weak_schedule.hash() != schedule.hash():
            raise UserError(f"{weak}: the weak model was trained under another schedule than the main one")
    statistics = Statistics.load(data / "train", model.layout)
    return {
        "transformer": LwdTransformer.from_network(model),
        "vae": _vae(data, vae, manifest, model.layout),
        "scheduler": LwdScheduler.from_schedule(schedule, statistics.mean, statistics.std),
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


def _vae(data: Path, vae: str | Path | Autoencoder | None, manifest: Manifest | None, layout: Layout) -> Any:
    """The one given, else the one in the manifest, as a component of a pipeline."""
    if isinstance(vae, Autoencoder):
        return vae.model
    if vae is not None:
        return load_vae(vae).model
    if manifest is None:
        raise UserError(f"{data}: no {MANIFEST}, so no VAE is known; give vae, its weights or its folder")
    decoder = load_decoder(data)
    if isinstance(decoder.encoder, Autoencoder):
        return decoder.encoder.model
    channels = next(group.channels for group in layout.groups if group.name == decoder.group)
    return LwdVAE.from_encoder(decoder.encoder, channels)
