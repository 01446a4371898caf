"""`lwd encode`: images -> latent shards, statistics, and a manifest that says how they came about."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from lwd.config import Config
from lwd.data.builtin import Split, load
from lwd.data.shards import shard_key, write_shard
from lwd.data.stats import channel_stats, save_stats, stats_path
from lwd.encoders.features import SmallCNN, SmallViT, train_classifier
from lwd.encoders.pca import PatchPCA
from lwd.encoders.store import FORMAT, JUDGE, MANIFEST, read_manifest
from lwd.encoders.texture import PixelUnshuffle
from lwd.errors import UserError
from lwd.files import atomic_path, write_json
from lwd.runtime.checkpoint import save_tensors, versions
from lwd.runtime.progress import progress_bar, say
from lwd.runtime.run import RunConfig, write_run_files
from lwd.runtime.seeding import Stream, integer, seeded

SPLITS: tuple[Split, ...] = ("train", "heldout")
SHARD_IMAGES = 1000
SPECTRUM = 8
"""How many leading explained-variance ratios the manifest lists, for choosing the semantic channels."""


class EncodeSettings(Config):
    """Which images become which groups."""

    dataset: str = "digits"
    texture: str = ""
    """The group that holds the 2x2 pixel-unshuffle of the image, and is decoded back to pixels."""
    semantic: str = ""
    """The group that holds the PCA of a small ViT's patch features, to the group's number of channels."""
    factor: PositiveInt = 2
    encoder_steps: PositiveInt = 400
    judge_steps: PositiveInt = 400
    judge_distortion: NonNegativeFloat = 0.1
    """Random affine maps for the judge alone, which make its features, and so the Fréchet distance, see less noise."""


class EncodeConfig(RunConfig):
    """Everything `run` reads."""

    encode: EncodeSettings = EncodeSettings()


def run(config: EncodeConfig) -> Path:
    """Train the small encoders on the training split, encode both splits, write everything to OUTPUT/data.

    Returns the folder. Data that was encoded under the same settings is left as it is. Raises UserError for settings
    that do not fit the groups, and for a folder that holds anything else.
    """
    settings, folder, show = config.encode, config.data_path, config.compute.progress
    channels = _semantic_channels(config)
    recipe = {"seed": config.seed, "groups": config.layout.to_list(), **settings.model_dump(mode="json")}
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not (folder / MANIFEST).is_file():
            raise UserError(f"{folder}: holds other files; choose another output or data.path")
        if read_manifest(folder)["recipe"] != recipe:
            raise UserError(f"{folder}: encoded with other settings; choose another output or remove it")
        if all(any((folder / split).glob("*.safetensors")) for split in SPLITS):
            say(f"already encoded: {folder}", show)
            return folder
    images, labels = load(settings.dataset, "train")
    with seeded(Stream.INITIALISE, config.seed):
        vit, judge = SmallViT(), SmallCNN()
    with progress_bar("semantic encoder", settings.encoder_steps, show=show) as advance:
        seed = integer(Stream.ENCODER, config.seed)
        train_classifier(vit, images, labels, steps=settings.encoder_steps, seed=seed, progress=advance)
    with progress_bar("judge", settings.judge_steps, show=show) as advance:
        seed, distortion = integer(Stream.ENCODER, config.seed, 1), settings.judge_distortion
        train_classifier(
            judge, images, labels, steps=settings.judge_steps, distortion=distortion, seed=seed, progress=advance
        )
    with torch.no_grad():
        pca = PatchPCA(channels).fit(vit.patch_features(images))
        latents = {split: _encode(config, split, vit, pca) for split in SPLITS}
    stats = {shard_key(group): channel_stats([latents["train"].groups[group.name]]) for group in config.layout.groups}
    with atomic_path(folder) as temporary:
        splits = {split: _write_split(config, temporary / split, part, stats) for split, part in latents.items()}
        save_tensors(temporary / "semantic.safetensors", vit.state_dict())
        save_tensors(temporary / JUDGE, judge.state_dict())
        pca.save(temporary / "pca.safetensors")
        write_run_files(config, temporary)
        write_json(temporary / MANIFEST, _manifest(config, recipe, splits, vit, judge, pca))
    return folder


def _manifest(
    config: EncodeConfig,
    recipe: dict[str, Any],
    splits: dict[Split, dict[str, Any]],
    vit: SmallViT,
    judge: SmallCNN,
    pca: PatchPCA,
) -> dict[str, Any]:
    settings = config.encode
    train, _ = load(settings.dataset, "train")
    heldout, labels = load(settings.dataset, "heldout")
    return {
        "format": FORMAT,
        "recipe": recipe,
        "fingerprint": hashlib.sha256("".join(s["sha256"] for s in splits.values()).encode()).hexdigest()[:12],
        "splits": splits,
        "texture": {"group": settings.texture, "kind": "pixel_unshuffle", "factor": settings.factor},
        "semantic": {
            "group": settings.semantic,
            "kind": "PCA of a small ViT's patch features",
            "explained_variance_ratio": pca.explained_variance_ratio.tolist(),
            "spectrum": PatchPCA(SPECTRUM).fit(vit.patch_features(train)).explained_variance_ratio.tolist(),
            "accuracy_heldout": _accuracy(vit, heldout, labels),
        },
        "judge": {
            "channels": judge.head.in_features,
            "classes": judge.head.out_features,
            "accuracy_heldout": _accuracy(judge, heldout, labels),
        },
        "versions": versions(),
    }


@dataclass(frozen=True)
class _Split:
    """The latents by group, REPA features and labels of one split, and the mirrored twins."""

    groups: dict[str, Tensor]
    flipped: dict[str, Tensor]
    features: Tensor
    features_flipped: Tensor
    labels: Tensor


def _semantic_channels(config: EncodeConfig) -> int:
    """How many channels the PCA gets; raises UserError unless the groups are one texture and one semantic group."""
    settings, layout = config.encode, config.layout
    if sorted(layout.names) != sorted([settings.texture, settings.semantic]):
        raise UserError(
            f"encode: texture {settings.texture!r} and semantic {settings.semantic!r} must be the groups "
            f"{list(layout.names)}"
        )
    by_name = {group.name: group for group in layout.groups}
    texture_channels = load(settings.dataset, "heldout")[0].shape[1] * settings.factor**2
    if by_name[settings.texture].channels != texture_channels:
        raise UserError(
            f"groups: {settings.texture!r} needs {texture_channels} channels at encode.factor {settings.factor}"
        )
    return by_name[settings.semantic].channels


def _encode(config: EncodeConfig, split: Split, vit: SmallViT, pca: PatchPCA) -> _Split:
    settings = config.encode
    images, labels = load(settings.dataset, split)
    texture = PixelUnshuffle(settings.factor)

    def groups(x: Tensor, features: Tensor) -> dict[str, Tensor]:
        return {settings.texture: texture.encode(x), settings.semantic: pca.encode(features)}

    mirrored = images.flip(-1)
    features, features_flipped = vit.patch_features(images), vit.patch_features(mirrored)
    return _Split(groups(images, features), groups(mirrored, features_flipped), features, features_flipped, labels)


def _write_split(
    config: EncodeConfig, folder: Path, split: _Split, stats: dict[str, tuple[Tensor, Tensor]]
) -> dict[str, Any]:
    """Shards of SHARD_IMAGES images with the training split's statistics beside them; returns the manifest's entry."""
    folder.mkdir(parents=True)
    digest = hashlib.sha256()
    for number, start in enumerate(range(0, len(split.labels), SHARD_IMAGES)):
        rows = slice(start, start + SHARD_IMAGES)
        path = folder / f"latents_rank00_shard{number:03d}.safetensors"
        write_shard(
            path,
            config.layout,
            {name: latents[rows] for name, latents in split.groups.items()},
            split.labels[rows],
            {name: latents[rows] for name, latents in split.flipped.items()},
            split.features[rows],
            split.features_flipped[rows],
        )
        digest.update(path.read_bytes())
    for key, (mean, std) in stats.items():
        save_stats(stats_path(folder, key), mean, std)
    counts = torch.bincount(split.labels).tolist()
    return {"images": len(split.labels), "per_class": counts, "sha256": digest.hexdigest()}


@torch.no_grad()
def _accuracy(model: SmallViT | SmallCNN, images: Tensor, labels: Tensor) -> float:
    return float((model(images).argmax(1) == labels).double().mean())
