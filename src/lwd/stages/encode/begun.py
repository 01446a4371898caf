"""Which pretrained weights an unfinished folder was begun with: its shards must not be made by two encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from lwd.data.format import is_shard
from lwd.encoders.composite import Compressor, PatchFeatures
from lwd.encoders.pretrained import fingerprint
from lwd.encoders.vae import Autoencoder
from lwd.encoders.vision import PatchEncoder, TransformersEncoder
from lwd.errors import UserError
from lwd.files import write_json
from lwd.images.walk import files_in, folders_in
from lwd.records import read_mapping
from lwd.stages.encode.encoders import Networks, keyed, pca_path
from lwd.stages.encode.settings import EncodeSettings

BEGUN_BY = ".encoders.json"
"""While shards are missing: what makes them, by key of the config."""


def check_begun(folder: Path, settings: EncodeSettings, networks: Networks, size: int) -> None:
    """Note what is pretrained, for images of ``size`` pixels.

    Raises UserError where shards or principal components that are there were made by other weights, or with another
    scale or preprocessing, than lie at the config's path now.
    """
    now, file = _pretrained(settings, networks, size), folder / BEGUN_BY
    before = read_mapping(file, "facts about encoders", f"remove {folder}, and encode again") if file.is_file() else now
    fitted = {f"{key}.path" for key, part in keyed(settings) if pca_path(folder, settings, part).is_file()}
    shards = any(files_in(folder / name, is_shard) for name in folders_in(folder))
    for key in sorted(now.keys() | before.keys() if shards else fitted):
        if now.get(key) != before.get(key):
            raise UserError(
                f"{folder}: begun with other weights or another scale or preprocessing than {key} has now; put those "
                f"there again, or remove {folder}"
            )
    write_json(file, now)


def weights_of(encoder: object) -> dict[str, Any]:
    """SHA-256 of an encoder's weights, where it has any."""
    if isinstance(encoder, Autoencoder | PatchEncoder | TransformersEncoder):
        return {"weights_sha256": encoder.fingerprint()}
    return {"weights_sha256": fingerprint(encoder)} if isinstance(encoder, nn.Module) else {}


def facts_of(network: object, size: int) -> dict[str, Any]:
    """Of a network with features: how images of ``size`` pixels became these, and its weights."""
    return {**(network.facts(size) if isinstance(network, TransformersEncoder) else {}), **weights_of(network)}


def _pretrained(settings: EncodeSettings, networks: Networks, size: int) -> dict[str, str]:
    """What is not trained on the spot, which has a place in the folder itself; as texts, since JSON has no tuples."""
    texture, found = networks.texture, dict[str, str]()
    if isinstance(texture, Autoencoder):
        found["encode.texture.path"] = str(texture.facts() | weights_of(texture))
    named: dict[str, tuple[PatchFeatures | None, Compressor | None]]
    named = {key: networks.others[part.group] for key, part in keyed(settings)}
    if all(networks.repa is not network for network, _ in named.values()):
        named["encode.repa"] = networks.repa, None
    for key, (network, compressor) in named.items():
        if isinstance(network, PatchEncoder | TransformersEncoder):
            found[f"{key}.path"] = str(facts_of(network, size))
        if isinstance(compressor, nn.Module):
            found[f"{key}.semvae"] = str(weights_of(compressor))
    return found
