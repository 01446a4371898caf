"""The encoders of a run of `lwd encode`: small ones trained on the spot, pretrained ones loaded, PCA fitted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from lwd.data.encoded import JUDGE
from lwd.encoders.composite import CompositeEncoder, Compressor, PatchFeatures
from lwd.encoders.pca import PatchPCA
from lwd.encoders.semvae import SemVAE, load_released_semvae, load_semvae
from lwd.encoders.small import SmallCNN, SmallViT, train_classifier
from lwd.encoders.texture import PixelUnshuffle, TextureEncoder
from lwd.encoders.vae import SDVAE
from lwd.encoders.vision import load_patch_encoder
from lwd.errors import UserError
from lwd.files import atomic_path
from lwd.groups import Layout
from lwd.images.sheets import to_unit
from lwd.runtime.checkpoint import load_module, save_tensors
from lwd.runtime.processes import Processes
from lwd.runtime.progress import progress_bar
from lwd.runtime.seeding import Stream, integer, seeded
from lwd.stages.encode.feed import ImagesOrFiles, TensorImages, image_loader, image_shape
from lwd.stages.encode.settings import (
    NONE,
    RANDOM_VIT,
    SAME,
    SMALL_VIT,
    EncodeSettings,
    SemanticSettings,
    TextureSettings,
)

VIT_FILE, RANDOM_FILE, PCA_FILE = "semantic.safetensors", "random.safetensors", "pca.safetensors"
SMALL = {SMALL_VIT: VIT_FILE, RANDOM_VIT: RANDOM_FILE}
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
    texture = _texture(settings.texture, processes)
    semantic = _features(settings.semantic.encoder, settings.semantic.path, train, processes)
    repa: PatchFeatures | None = semantic
    if settings.repa.encoder != SAME:
        none = settings.repa.encoder == NONE
        repa = None if none else _features(settings.repa.encoder, settings.repa.path, train, processes)
    semvae = _semvae(settings.semantic, processes) if settings.semantic.compress == "semvae" else None
    networks = Networks(texture, semantic, repa, semvae)
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
    if isinstance(train, TensorImages) and processes.is_main:
        _train_small(settings, seed, folder, train, processes.compute.progress)
    processes.barrier()
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


def _texture(settings: TextureSettings, processes: Processes) -> TextureEncoder:
    if settings.encoder == "identity":
        return PixelUnshuffle(settings.factor)
    return SDVAE.load(settings.path, processes.device, processes.dtype)


def _features(name: str, path: Path | None, train: ImagesOrFiles, processes: Processes) -> PatchFeatures:
    if name not in SMALL:
        return load_patch_encoder(name, path, processes.device, processes.dtype)
    if not isinstance(train, TensorImages):
        raise UserError(
            f"encode: {name!r} is made for built-in and prepared data sets; images on disk need a pretrained one"
        )
    return small_vit(train).eval().to(processes.device)


def small_vit(train: TensorImages) -> SmallViT:
    """The network that fits a built-in or prepared data set, freshly initialised from torch's global generator."""
    _, channels, size, _ = train.images.shape
    return SmallViT(classes=int(train.labels.max()) + 1, image_channels=channels, image_size=size)


def _train_small(settings: EncodeSettings, seed: int, folder: Path, train: TensorImages, show: bool) -> None:
    """The semantic encoder and the classifier of a built-in or prepared data set, each written once it is done."""
    with seeded(Stream.INITIALISE, seed):
        vit = small_vit(train)
        judge = SmallCNN(classes=int(train.labels.max()) + 1, image_channels=train.images.shape[1])
    if RANDOM_VIT in (settings.semantic.encoder, settings.repa.encoder) and not (folder / RANDOM_FILE).is_file():
        with atomic_path(folder / RANDOM_FILE) as temporary:
            save_tensors(temporary, vit.state_dict())
    todo: tuple[tuple[str, torch.nn.Module, str, int, float, int], ...] = (
        ("semantic encoder", vit, VIT_FILE, settings.encoder_steps, 0.0, 0),
        ("judge", judge, JUDGE, settings.judge_steps, settings.judge_distortion, 1),
    )
    for title, model, file, steps, distortion, number in todo:
        if (folder / file).is_file():
            continue
        with progress_bar(title, steps, show=show) as advance:
            own = integer(Stream.ENCODER, seed, number)
            images, labels = train.images, train.labels
            train_classifier(model, images, labels, steps=steps, distortion=distortion, seed=own, progress=advance)
        with atomic_path(folder / file) as temporary:
            save_tensors(temporary, model.state_dict())


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


def _semvae(settings: SemanticSettings, processes: Processes) -> SemVAE:
    if settings.semvae is None:
        raise UserError("encode.semantic.semvae: the folder that lwd semvae wrote, or a released .pt, is needed")
    load = load_semvae if settings.semvae.is_dir() else load_released_semvae
    model: SemVAE = load(settings.semvae)
    return model.to(processes.device).eval()
