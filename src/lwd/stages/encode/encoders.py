"""The encoders of a run of `lwd encode`: small ones trained on the spot, pretrained ones loaded, PCA fitted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from lwd.data.encoded import TEXTURE
from lwd.encoders.composite import CompositeEncoder, Compressor, PatchFeatures
from lwd.encoders.downsample import Downsample, Unchanged
from lwd.encoders.pca import PatchPCA
from lwd.encoders.semvae import SemVAE, load_released_semvae, load_semvae
from lwd.encoders.small import SmallViT
from lwd.encoders.small_vae import SMALL_VAE, SmallVAE
from lwd.encoders.texture import IDENTITY, PixelUnshuffle, TextureEncoder
from lwd.encoders.vae import DIFFUSERS, SDVAE, Autoencoder
from lwd.encoders.vision import VISION_MODELS, load_patch_encoder, load_transformers_encoder
from lwd.errors import UserError
from lwd.groups import Layout
from lwd.images.sheets import to_unit
from lwd.runtime.checkpoint import load_module
from lwd.runtime.processes import Processes
from lwd.runtime.progress import progress_bar
from lwd.stages.encode.feed import ImagesOrFiles, image_loader, image_shape
from lwd.stages.encode.settings import (
    DOWNSAMPLE,
    NONE,
    SAME,
    TRANSFORMERS,
    EncodeSettings,
    RepaSettings,
    SemanticSettings,
    TextureSettings,
)
from lwd.stages.encode.small import SMALL, is_judged, small_vit, train_small
from lwd.stages.encode.texture import train_texture

PCA_FILE = "pca.safetensors"
EXACT_PCA_VALUES = 2**26
"""Up to so many feature values (0.5 GB in float64) PCA is fitted at once and exactly, beyond in a stream."""


@dataclass(frozen=True)
class Networks:
    """The encoders before anything is trained or fitted; ``compressor`` is None where PCA is still to be fitted."""

    texture: TextureEncoder
    semantic: PatchFeatures
    repa: PatchFeatures | None
    compressor: Compressor | None


def assemble(settings: EncodeSettings, layout: Layout, processes: Processes, train: ImagesOrFiles) -> Networks:
    """Load what is pretrained and make what is trained on the spot, then decide all shapes by one blank image.

    Raises UserError for settings that do not fit the images or groups; costs no work that a run would have to do anew.
    """
    texture = _texture(settings.texture, layout, train, processes)
    is_judged(settings, train)
    factor = texture.factor
    semantic = _features("encode.semantic", settings.semantic, train, factor, processes)
    repa: PatchFeatures | None = None if isinstance(semantic, Downsample) else semantic
    if settings.repa.encoder == DOWNSAMPLE:
        raise UserError(f"encode.repa.encoder: {DOWNSAMPLE} has no features to align to; name a network, or {NONE}")
    if settings.repa.encoder not in (SAME, NONE):
        repa = _features("encode.repa", settings.repa, train, factor, processes)
    else:
        _check_unused("encode.repa", settings.repa, "layer", "resolution")
        repa = repa if settings.repa.encoder == SAME else None
    networks = Networks(texture, semantic, repa, _compressor(settings.semantic, processes))
    _check_shapes(settings, layout, networks, torch.zeros(1, *image_shape(train), device=processes.device))
    return networks


def prepare(
    settings: EncodeSettings,
    layout: Layout,
    seed: int,
    folder: Path,
    processes: Processes,
    train: ImagesOrFiles,
    networks: Networks,
) -> CompositeEncoder:
    """Make what has to be made, on the main process and into ``folder``, then load it on every process.

    What ``folder`` holds already is not made again. Raises UserError where PCA cannot be fitted.
    """
    if processes.is_main:
        train_small(settings, seed, folder, train, networks.texture.factor, processes.compute.progress)
        if isinstance(networks.texture, SmallVAE):
            train_texture(settings, seed, folder, train, networks.texture, processes)
    processes.barrier()
    if isinstance(networks.texture, SmallVAE):
        load_module(networks.texture, folder / TEXTURE)
    for name, network in ((settings.semantic.encoder, networks.semantic), (settings.repa.encoder, networks.repa)):
        if name in SMALL and isinstance(network, SmallViT):
            load_module(network, folder / SMALL[name])
    semantic = networks.semantic
    if networks.compressor is None and processes.is_main and not (folder / PCA_FILE).is_file():
        channels = _channels(layout, settings.semantic.group)
        _fit_pca(settings, channels, train, semantic, processes).save(folder / PCA_FILE)
    processes.barrier()
    compressor = networks.compressor or PatchPCA.load(folder / PCA_FILE)
    return CompositeEncoder(
        settings.texture.group, networks.texture, settings.semantic.group, semantic, compressor, networks.repa
    )


@torch.inference_mode()
def _check_shapes(settings: EncodeSettings, layout: Layout, networks: Networks, blank: Tensor) -> None:
    """Raise UserError unless the encoders take images like ``blank`` and make the groups of it, on one grid."""
    try:
        texture, features = networks.texture.encode(blank), networks.semantic.patch_features(blank)
        semantic = features if networks.compressor is None else networks.compressor.encode(features)
        if networks.repa is not None and networks.repa is not networks.semantic:
            networks.repa.patch_features(blank)
    except ValueError as error:
        raise UserError(f"encode: the encoders do not take images of {tuple(blank.shape[1:])} ({error})") from error
    wanted, width = _channels(layout, settings.semantic.group), semantic.shape[1]
    if networks.compressor is None and wanted > width:
        raise UserError(f"encode: PCA to {wanted} channels: the features of {settings.semantic.encoder} have {width}")
    made = {settings.texture.group: texture.shape[1]}
    made[settings.semantic.group] = wanted if networks.compressor is None else width
    for name, channels in made.items():
        if channels != _channels(layout, name):
            raise UserError(
                f"groups: {name!r} has {_channels(layout, name)} channels, its encoder makes {channels} of images of "
                f"shape {tuple(blank.shape[1:])}"
            )
    grids = {settings.texture.group: tuple(texture.shape[2:]), settings.semantic.group: tuple(semantic.shape[2:])}
    if len(set(grids.values())) > 1:
        raise UserError(f"encode: the groups lie on different grids {grids}; choose another factor, size or encoder")


def _channels(layout: Layout, name: str) -> int:
    return next(group.channels for group in layout.groups if group.name == name)


def _texture(settings: TextureSettings, layout: Layout, train: ImagesOrFiles, processes: Processes) -> TextureEncoder:
    if settings.encoder == IDENTITY:
        return PixelUnshuffle(settings.factor)
    if settings.encoder == SMALL_VAE:
        try:
            vae = SmallVAE(_channels(layout, settings.group), settings.factor, image_shape(train)[0])
        except ValueError as error:
            raise UserError(f"encode.texture.factor: {error}") from error
        return vae.eval().requires_grad_(False).to(processes.device)
    kind = Autoencoder if settings.encoder == DIFFUSERS else SDVAE
    return kind.load(settings.path, processes.device, processes.dtype)


def _features(
    key: str, settings: SemanticSettings | RepaSettings, train: ImagesOrFiles, factor: int, processes: Processes
) -> PatchFeatures:
    """The network that ``key`` of the config asks for."""
    name, path = settings.encoder, settings.path
    if name == TRANSFORMERS:
        if path is None:
            raise UserError(f"{key}.path: name the model's folder, or its Hub id such as facebook/dinov2-small")
        return load_transformers_encoder(
            path, factor, processes.device, processes.dtype, settings.layer, settings.resolution
        )
    _check_unused(key, settings, "resolution")
    if name in VISION_MODELS:
        folder = None if path is None else Path(path)
        return load_patch_encoder(name, folder, processes.device, processes.dtype, settings.layer)
    _check_unused(key, settings, "layer")
    if name == DOWNSAMPLE:
        return Downsample(factor)
    if name in SMALL:
        return small_vit(train, factor).eval().to(processes.device)
    known = ", ".join((DOWNSAMPLE, *SMALL, *VISION_MODELS, TRANSFORMERS))
    raise UserError(f"{key}.encoder: unknown encoder {name!r}; known: {known}")


def _check_unused(key: str, settings: SemanticSettings | RepaSettings, *names: str) -> None:
    """Raise UserError where a setting is given that the encoder has no use for."""
    if given := [name for name in names if getattr(settings, name) is not None]:
        raise UserError(f"{key}.{given[0]}: {settings.encoder} has no use for it; leave it out")


def _fit_pca(
    settings: EncodeSettings, channels: int, train: ImagesOrFiles, semantic: PatchFeatures, processes: Processes
) -> PatchPCA:
    count = min(settings.semantic.pca_images, len(train))
    rows = torch.arange(count) * len(train) // count
    chunks = _feature_chunks(settings, train, rows, semantic, processes)
    first = next(chunks, None)
    if first is None:
        raise UserError(f"encode: none of the {len(rows)} images for the PCA can be read")
    try:
        if first[0].numel() * len(rows) <= EXACT_PCA_VALUES:
            return PatchPCA(channels).fit(torch.cat([first, *chunks]))
        return PatchPCA(channels).fit_stream(chain([first], chunks))
    except ValueError as error:
        raise UserError(f"encode: PCA to {channels} channels: {error}") from error


def _feature_chunks(
    settings: EncodeSettings, train: ImagesOrFiles, rows: Tensor, semantic: PatchFeatures, processes: Processes
) -> Iterator[Tensor]:
    """Features of the readable images among ``rows``, batch by batch, on the CPU."""
    batches = [batch.tolist() for batch in torch.split(rows, settings.batch)]
    with progress_bar("features for the PCA", len(rows), show=processes.compute.progress) as advance:
        for crops in image_loader(train, batches, settings.decoders):
            good = torch.tensor([error is None for error in crops.errors])
            if bool(good.any()):
                with torch.inference_mode():
                    yield semantic.patch_features(to_unit(crops.images[good].to(processes.device))).cpu()
            advance(len(good))


def _compressor(settings: SemanticSettings, processes: Processes) -> Compressor | None:
    """None: PCA, which is still to be fitted."""
    if settings.encoder == DOWNSAMPLE:
        if settings.compress == "semvae":
            raise UserError(f"encode.semantic.compress: {DOWNSAMPLE} is stored as it is; leave out compress: semvae")
        return Unchanged()
    if settings.compress == "pca":
        return None
    if settings.semvae is None:
        raise UserError("encode.semantic.semvae: the folder that lwd semvae wrote, or a released .pt, is needed")
    load = load_semvae if settings.semvae.is_dir() else load_released_semvae
    model: SemVAE = load(settings.semvae)
    return model.to(processes.device).eval()
