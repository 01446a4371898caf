"""What `lwd encode` leaves for later stages: the decoder to pixels and the classifier for samples; and what a released
model carries of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lwd.data.encoded import FORMAT, JUDGE, MANIFEST, TEXTURE, Texture, fingerprint_of, read_manifest
from lwd.data.format import shard_key
from lwd.data.stats import stats_path
from lwd.encoders.pretrained import fingerprint
from lwd.encoders.small import SmallCNN
from lwd.encoders.small_vae import SMALL_VAE, SmallVAE
from lwd.encoders.texture import IDENTITY, PixelUnshuffle, TextureEncoder
from lwd.encoders.vae import DIFFUSERS, SDVAE, Autoencoder
from lwd.encoders.vae.autoencoder import hub_file
from lwd.errors import UserError
from lwd.files import copy_file, write_json
from lwd.groups import Layout
from lwd.images.sheets import to_uint8
from lwd.runtime.checkpoint import STATE, load_module, read_state

CARRIED = "data"
"""In a released model's folder: what decodes its samples, without any latents."""
VAE = "vae"
"""Beside the manifest of such data: the VAE, in diffusers' layout."""
_NAMED = 8
"""Images in an error."""
_KEPT = {"group", "encoder", "factor", "channels", "image_channels", "scale", "shift", "weights_sha256"}
"""Of the facts about the texture's encoder."""


@dataclass(frozen=True)
class Decoder:
    """From composite latents to pixels: only ``group`` is decoded."""

    group: str
    encoder: TextureEncoder

    def decode(self, latents: Tensor, layout: Layout) -> Tensor:
        """Latents (N, C, ...) on the encoders' own scale -> images (N, c, H', W') in [-1, 1]."""
        return self.encoder.decode(layout.split(latents)[self.group])


def decode_rgb(decoder: Decoder, latents: Tensor, layout: Layout, numbers: Tensor | None = None) -> Tensor:
    """Latents (n, C, ...) on the encoders' own scale -> uint8 (n, 3, H', W'), on the CPU.

    Raises UserError where pixels are not finite, which would be black ones; the images are called by their ``numbers``
    (n,), by default from 0.
    """
    images = decoder.decode(latents, layout).float()
    check_finite(images, numbers)
    return to_uint8(images).expand(-1, 3, -1, -1).cpu()


def check_finite(images: Tensor, numbers: Tensor | None = None) -> None:
    """Raise UserError where an image (n, ...), on any device, is not finite; ``numbers`` as in `decode_rgb`."""
    finite = torch.isfinite(images).flatten(1).all(1).cpu()
    if bool(finite.all()):
        return
    bad = (torch.arange(len(finite)) if numbers is None else numbers)[~finite].tolist()
    more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    raise UserError(
        f"images {', '.join(map(str, bad[:_NAMED]))}{more}: decoded to values that are not finite, which no picture "
        "shows; is the checkpoint a trained one, of this data, and the decoder the data's own?"
    )


def load_decoder(folder: str | Path, device: torch.device | str = "cpu") -> Decoder:
    """The decoder of encoded data, on ``device`` where it is a network.

    Raises UserError where there is no encoded data, and where its decoder is missing, damaged, or not what the data was
    encoded with.
    """
    folder = Path(folder)
    texture = read_manifest(folder).texture
    if texture.encoder == IDENTITY:
        return Decoder(texture.group, PixelUnshuffle(texture.factor))
    if texture.encoder == SMALL_VAE:
        return Decoder(texture.group, _load_small_vae(folder, texture).to(device))
    return Decoder(texture.group, _pretrained(folder, texture, device))


def _pretrained(folder: Path, texture: Texture, device: torch.device | str = "cpu") -> Autoencoder:
    """The VAE that the data in ``folder`` was encoded with, under the scale and shift of then, whatever its config.json
    says. Raises UserError where it is another one now."""
    path, released = folder / VAE if (folder / VAE).is_dir() else texture.path, texture.encoder != DIFFUSERS
    vae = (SDVAE if released else Autoencoder).load(path, device)
    dtypes = (torch.float32, torch.bfloat16)  # in one of which it encoded
    sha256 = texture.weights_sha256
    if sha256 is not None and all(sha256 != fingerprint(vae.model, dtype) for dtype in dtypes):
        raise UserError(f"{path}: its weights are not those that {folder} was encoded with; put that VAE there again")
    unsaid = (1.0, 0.0) if released else (vae.scale, vae.shift)  # f16d32 had neither when manifests did not say
    scale, shift = (
        was if said is None else said for said, was in zip((texture.scale, texture.shift), unsaid, strict=True)
    )
    return vae if (scale, shift) == (vae.scale, vae.shift) else vae.scaled(scale, shift)


def carry(data: Path, layout: Layout, target: Path) -> str:
    """Write what samples are decoded with, and nothing that tells of the pictures or of this machine, to ``target``.

    That are the statistics by which latents are standardised and, where the data has a manifest, the decoder: the small
    VAE, or a VAE of a local path; one of the Hub stays named. Returns in words which. Raises UserError for what is
    missing, and for another VAE than the data was encoded with.
    """
    for group in layout.groups:
        copy_file(*(stats_path(folder / "train", shard_key(group)) for folder in (data, target)))
    if not (data / MANIFEST).is_file():
        return "statistics, no decoder"
    manifest = read_manifest(data)
    kept = manifest.texture.model_dump(include=_KEPT, exclude_none=True)
    said, path = kept["encoder"], manifest.texture.path
    if said == SMALL_VAE:
        copy_file(data / TEXTURE, target / TEXTURE)
    elif said != IDENTITY and Path(path).expanduser().exists():
        _pretrained(data, manifest.texture).model.save_pretrained(target / VAE)
    elif said != IDENTITY and hub_file(path) is None:
        raise UserError(f"{data}: its {said} was at {path}, where there is nothing now; put it there again")
    elif said != IDENTITY:
        kept["path"] = said = path
    small = {"format": FORMAT, "recipe": {}, "fingerprint": manifest.fingerprint, "splits": {}, "texture": kept}
    write_json(target / MANIFEST, {**small, "judge": None})
    return f"statistics and decoder ({said})"


def _load_small_vae(folder: Path, texture: Texture) -> SmallVAE:
    if texture.channels is None or texture.image_channels is None:
        raise UserError(f"{folder / MANIFEST}: texture lacks channels or image_channels; run `lwd encode` again")
    try:
        vae = SmallVAE(texture.channels, texture.factor, texture.image_channels)
    except ValueError as error:
        raise UserError(f"{folder / MANIFEST}: texture.factor: {error}; run `lwd encode` again") from error
    load_module(vae, folder / TEXTURE)
    return vae.eval().requires_grad_(False)


def load_classifier(folder: str | Path) -> SmallCNN:
    """The classifier of encoded data, in evaluation mode: its pooled features measure distances between sets of images,
    and it is never used to make latents.

    Raises UserError for data that was encoded without one, and where it is missing or damaged.
    """
    folder = Path(folder)
    settings = read_manifest(folder).judge
    if settings is None:
        raise UserError(f"{folder}: was encoded without a judge; encode labelled images with encode.judge=true")
    judge = SmallCNN(
        settings.channels,
        settings.classes,
        image_channels=settings.image_channels,
        image_size=settings.image_size,
    )
    load_module(judge, folder / JUDGE)
    return judge.eval()


def check_data(checkpoint: Path, data: Path) -> None:
    """Raise UserError where a checkpoint says that it is of other data than the folder ``data``: that of `lwd train` in
    its state, a released one in what it carries; a converted one does not say."""
    if (checkpoint / STATE).is_file():
        trained_on = read_state(checkpoint).recipe.get("data")
    elif (checkpoint / CARRIED / MANIFEST).is_file():
        trained_on = fingerprint_of(checkpoint / CARRIED)
    else:
        return
    if trained_on != (present := fingerprint_of(data)):
        raise UserError(f"{checkpoint}: trained on data {trained_on}, {data} is {present}")
