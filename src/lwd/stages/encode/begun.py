"""Which pretrained weights an unfinished folder was begun with: its shards must not be made by two encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from lwd.data.format import is_shard
from lwd.encoders.pretrained import fingerprint
from lwd.encoders.vae import Autoencoder
from lwd.encoders.vision import PatchEncoder, TransformersEncoder
from lwd.errors import UserError
from lwd.files import read_json, write_json
from lwd.images.walk import files_in, folders_in
from lwd.stages.encode.encoders import Networks, keyed, pca_path
from lwd.stages.encode.settings import EncodeSettings

BEGUN_BY = ".encoders.json"
"""While shards are missing: the hashes of the weights that make them, by key of the config."""


def check_begun(folder: Path, settings: EncodeSettings, networks: Networks) -> None:
    """Note what is pretrained. Raises UserError where shards or principal components that are there were made by other
    weights, or with another scale, than lie at the config's path now."""
    now, file = _pretrained(settings, networks), folder / BEGUN_BY
    before = dict(read_json(file)) if file.is_file() else now
    made = any(files_in(folder / name, is_shard) for name in folders_in(folder))
    if made or any(pca_path(folder, settings, part).is_file() for part in settings.others):
        for key in sorted(now.keys() | before.keys()):
            if now.get(key) != before.get(key):
                raise UserError(
                    f"{folder}: begun with other weights or another scale than {key} has now; put those there again, "
                    f"or remove {folder}"
                )
    write_json(file, now)


def weights_of(encoder: object) -> dict[str, Any]:
    """SHA-256 of an encoder's weights, where it has any."""
    if isinstance(encoder, Autoencoder | PatchEncoder | TransformersEncoder):
        return {"weights_sha256": encoder.fingerprint()}
    return {"weights_sha256": fingerprint(encoder)} if isinstance(encoder, nn.Module) else {}


def _pretrained(settings: EncodeSettings, networks: Networks) -> dict[str, Any]:
    """What is not trained on the spot, which has a place in the folder itself."""
    texture, found = networks.texture, dict[str, Any]()
    if isinstance(texture, Autoencoder):
        scale = {"scale": float(texture.scale), "shift": float(texture.shift)}
        found["encode.texture.path"] = weights_of(texture) | scale
    named = {key: networks.others[part.group] for key, part in keyed(settings)} | {"encode.repa": (networks.repa, None)}
    for key, (network, compressor) in named.items():
        if isinstance(network, PatchEncoder | TransformersEncoder):
            found[f"{key}.path"] = weights_of(network)
        if isinstance(compressor, nn.Module):
            found[f"{key}.semvae"] = weights_of(compressor)
    return found
