"""The encoders of a run of `lwd encode`: small ones trained on the spot, pretrained ones loaded, PCA fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from lwd.data.encoded import TEXTURE
from lwd.encoders.composite import CompositeEncoder, Compressor, Described, PatchFeatures
from lwd.encoders.downsample import Downsample, Unchanged
from lwd.encoders.edges import Edges
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
from lwd.runtime.preemption import InTime
from lwd.runtime.processes import Processes
from lwd.runtime.progress import progress_bar
from lwd.stages.encode.feed import ImagesOrFiles, image_loader, image_shape
from lwd.stages.encode.settings import (
    DOWNSAMPLE,
    NONE,
    PLAIN,
    SAME,
    TRANSFORMERS,
    EncodeSettings,
    RepaSettings,
    SemanticSettings,
    TextureSettings,
)
from lwd.stages.encode.small import SMALL, is_judged, small_vit, trainings
from lwd.stages.encode.texture import train_texture

EXACT_PCA_VALUES = 2**26
"""Up to so many feature values (0.5 GB in float64) PCA is fitted at once and exactly, beyond in a stream."""


@dataclass(frozen=True)
class Networks:
    """The encoders before anything is trained or fitted; ``others`` by group, each with its compressor, which is None
    where PCA is still to be fitted."""

    texture: TextureEncoder
    others: dict[str, tuple[PatchFeatures, Compressor | None]]
    repa: PatchFeatures | None


def assemble(settings: EncodeSettings, layout: Layout, processes: Processes, train: ImagesOrFiles) -> Networks:
    """Load what is pretrained and make what is trained on the spot, then decide all shapes by one blank image.

    Raises UserError for settings that do not fit the images or groups; costs no work that a run would have to do anew.
    """
    texture = _texture(settings.texture, layout, train, processes)
    is_judged(settings, train)
    factor = texture.factor
    others: dict[str, tuple[PatchFeatures, Compressor | None]] = {}
    for key, part in keyed(settings):
        network = _features(key, part, train, factor, processes)
        others[part.group] = network, _compressor(key, part, processes)
    if settings.repa.encoder in PLAIN:
        raise UserError(
            f"encode.repa.encoder: {settings.repa.encoder} has no features to align to; name a network, or {NONE}"
        )
    repa: PatchFeatures | None = None
    if settings.repa.encoder not in (SAME, NONE):
        repa = _features("encode.repa", settings.repa, train, factor, processes)
    else:
        _check_unused("encode.repa", settings.repa, "layer", "resolution")
        if settings.repa.encoder == SAME and settings.semantic.encoder not in PLAIN:
            repa = others[settings.semantic.group][0]
    networks = Networks(texture, others, repa)
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
    in_time: InTime,
) -> CompositeEncoder:
    """Make what has to be made, on the main process and into ``folder``, then load it on every process.

    What ``folder`` holds already is not made again. Raises UserError where PCA cannot be fitted, Preempted where
    ``in_time`` leaves a training or PCA.
    """
    if processes.is_main:
        show, texture = processes.compute.progress, networks.texture
        todo = [*trainings(settings, seed, folder, train, texture.factor, show, in_time.leave)]
        if isinstance(texture, SmallVAE) and not (folder / TEXTURE).is_file():
            todo.append(partial(train_texture, settings, seed, folder, train, texture, processes, in_time.leave))
        _in_turn(todo, in_time)
    processes.barrier()
    in_time.end(str(folder))
    if isinstance(networks.texture, SmallVAE):
        load_module(networks.texture, folder / TEXTURE)
    made = [(part.encoder, networks.others[part.group][0]) for part in settings.others]
    for name, network in (*made, (settings.repa.encoder, networks.repa)):
        if name in SMALL and isinstance(network, SmallViT):
            load_module(network, folder / SMALL[name])
    fits = [
        partial(_fit_pca, settings, part, _channels(layout, part.group), train, network, processes, path)
        for part in settings.others
        for network, compressor in [networks.others[part.group]]
        for path in [pca_path(folder, settings, part)]
        if compressor is None and processes.is_main and not path.is_file()
    ]
    _in_turn(fits, in_time)
    processes.barrier()
    in_time.end(str(folder))
    others = {
        part.group: Described(network, compressor or PatchPCA.load(pca_path(folder, settings, part)))
        for part in settings.others
        for network, compressor in [networks.others[part.group]]
    }
    return CompositeEncoder(settings.texture.group, networks.texture, others, networks.repa)


def _in_turn(todo: Sequence[Callable[[], None]], in_time: InTime) -> None:
    """One after the other, as long as there is time, which may be up after the last."""
    for piece in in_time.of(todo):
        piece()
    if todo:
        in_time.leave()


def keyed(settings: EncodeSettings) -> list[tuple[str, SemanticSettings]]:
    """All groups but the texture's, each with its key in the config."""
    return [
        ("encode.semantic", settings.semantic),
        *((f"encode.further[{number}]", part) for number, part in enumerate(settings.further)),
    ]


def pca_path(folder: Path, settings: EncodeSettings, part: SemanticSettings) -> Path:
    """Where a group's principal components lie in the encoded data."""
    return folder / ("pca.safetensors" if part is settings.semantic else f"pca-{part.group}.safetensors")


@torch.inference_mode()
def _check_shapes(settings: EncodeSettings, layout: Layout, networks: Networks, blank: Tensor) -> None:
    """Raise UserError unless the encoders take images like ``blank`` and make the groups of it, on one grid."""
    made, seen = {}, {}
    try:
        made[settings.texture.group] = networks.texture.encode(blank)
        for name, (network, compressor) in networks.others.items():
            seen[name] = network.patch_features(blank)
            made[name] = seen[name] if compressor is None else compressor.encode(seen[name])
        if networks.repa is not None and all(networks.repa is not network for network, _ in networks.others.values()):
            networks.repa.patch_features(blank)
    except ValueError as error:
        raise UserError(f"encode: the encoders do not take images of {tuple(blank.shape[1:])} ({error})") from error
    for name, latents in made.items():
        wanted, channels = _channels(layout, name), latents.shape[1]
        if name in seen and networks.others[name][1] is None:
            if wanted > channels:
                encoder = next(part.encoder for part in settings.others if part.group == name)
                raise UserError(f"encode: PCA to {wanted} channels: the features of {encoder} have {channels}")
        elif channels != wanted:
            raise UserError(
                f"groups: {name!r} has {wanted} channels, its encoder makes {channels} of images of shape "
                f"{tuple(blank.shape[1:])}"
            )
    grids = {name: tuple(latents.shape[2:]) for name, latents in made.items()}
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
    if name in PLAIN:
        return Downsample(factor) if name == DOWNSAMPLE else Edges(factor)
    if name in SMALL:
        return small_vit(train, factor).eval().to(processes.device)
    known = ", ".join((*PLAIN, *SMALL, *VISION_MODELS, TRANSFORMERS))
    raise UserError(f"{key}.encoder: unknown encoder {name!r}; known: {known}")


def _check_unused(key: str, settings: SemanticSettings | RepaSettings, *names: str) -> None:
    """Raise UserError where a setting is given that the encoder has no use for."""
    if given := [name for name in names if getattr(settings, name) is not None]:
        raise UserError(f"{key}.{given[0]}: {settings.encoder} has no use for it; leave it out")


def _fit_pca(
    settings: EncodeSettings,
    part: SemanticSettings,
    channels: int,
    train: ImagesOrFiles,
    network: PatchFeatures,
    processes: Processes,
    path: Path,
) -> None:
    """Fit PCA to up to ``pca_images`` images, and write it to ``path``."""
    count = min(part.pca_images, len(train))
    rows = torch.arange(count) * len(train) // count
    chunks = _feature_chunks(settings, train, rows, network, processes)
    first = next(chunks, None)
    if first is None:
        raise UserError(f"encode: none of the {len(rows)} images for the PCA can be read")
    try:
        if first[0].numel() * len(rows) <= EXACT_PCA_VALUES:
            pca = PatchPCA(channels).fit(torch.cat([first, *chunks]))
        else:
            pca = PatchPCA(channels).fit_stream(chain([first], chunks))
    except ValueError as error:
        raise UserError(f"encode: PCA to {channels} channels: {error}") from error
    pca.save(path)


def _feature_chunks(
    settings: EncodeSettings, train: ImagesOrFiles, rows: Tensor, network: PatchFeatures, processes: Processes
) -> Iterator[Tensor]:
    """Features of the readable images among ``rows``, batch by batch, on the CPU."""
    batches = [batch.tolist() for batch in torch.split(rows, settings.batch)]
    with progress_bar("features for the PCA", len(rows), show=processes.compute.progress) as advance:
        for crops in image_loader(train, batches, settings.decoders):
            good = torch.tensor([error is None for error in crops.errors])
            if bool(good.any()):
                with torch.inference_mode():
                    yield network.patch_features(to_unit(crops.images[good].to(processes.device))).cpu()
            advance(len(good))


def _compressor(key: str, settings: SemanticSettings, processes: Processes) -> Compressor | None:
    """None: PCA, which is still to be fitted."""
    if settings.encoder in PLAIN:
        if settings.compress == "semvae":
            raise UserError(f"{key}.compress: {settings.encoder} is stored as it is; leave out compress: semvae")
        return Unchanged()
    if settings.compress == "pca":
        return None
    if settings.semvae is None:
        raise UserError(f"{key}.semvae: the folder that lwd semvae wrote, or a released .pt, is needed")
    load = load_semvae if settings.semvae.is_dir() else load_released_semvae
    model: SemVAE = load(settings.semvae)
    return model.to(processes.device).eval()
