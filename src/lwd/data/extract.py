"""`lwd encode`: images -> latent shards, statistics, and a manifest that says how they came about."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lwd.config import Config
from lwd.data.builtin import digits
from lwd.data.shards import shard_key, write_shard
from lwd.data.stats import channel_stats, save_stats, stats_path
from lwd.encoders.features import SmallCNN, SmallViT, train_classifier
from lwd.encoders.pca import PatchPCA
from lwd.encoders.store import FORMAT, JUDGE, MANIFEST, read_manifest
from lwd.encoders.texture import PixelUnshuffle
from lwd.errors import UserError
from lwd.files import write_json
from lwd.runtime.checkpoint import load_module, save_tensors, versions
from lwd.runtime.progress import progress_bar, say
from lwd.runtime.run import RunConfig, write_run_files
from lwd.runtime.seeding import Stream, integer, seeded

SPLITS: tuple[Literal["train", "heldout"], ...] = ("train", "heldout")
SHARD_IMAGES = 1000


class EncodeSettings(Config):
    """Which images become which groups."""

    dataset: Literal["digits"] = "digits"
    texture: str = ""
    """The group that holds the 2x2 pixel-unshuffle of the image, and is decoded back to pixels."""
    semantic: str = ""
    """The group that holds the PCA of a small ViT's patch features, to the group's number of channels."""
    factor: int = 2
    encoder_steps: int = 500
    judge_steps: int = 500


class EncodeConfig(RunConfig):
    """Everything `run` reads."""

    encode: EncodeSettings = EncodeSettings()


def run(config: EncodeConfig) -> Path:
    """Train the small encoders on the training split, encode both splits, write everything to OUTPUT/data.

    Returns the folder. Data that was encoded under the same settings is left as it is. Raises UserError for settings
    that do not fit the groups.
    """
    settings, folder = config.encode, config.data_path
    _check(config)
    recipe = {"seed": config.seed, "groups": config.layout.to_list(), **settings.model_dump(mode="json")}
    if (folder / MANIFEST).is_file() and read_manifest(folder)["recipe"] == recipe:
        say(f"already encoded: {folder}", config.compute.progress)
        return folder
    images, labels = digits("train")
    show = config.compute.progress
    vit = _trained("semantic encoder", SmallViT(), images, labels, settings.encoder_steps, config.seed, show)
    judge = _trained("judge", SmallCNN(), images, labels, settings.judge_steps, config.seed + 1, show)
    pca = PatchPCA(config.layout.groups[config.layout.names.index(settings.semantic)].channels)
    pca.fit(vit.patch_features(images))
    heldout, heldout_labels = digits("heldout")
    splits = {}
    stats: dict[str, tuple[Tensor, Tensor]] = {}
    for split in SPLITS:
        splits[split] = _write_split(config, split, vit, pca, stats)
    save_tensors(folder / "semantic.safetensors", vit.state_dict())
    save_tensors(folder / JUDGE, judge.state_dict())
    pca.save(folder / "pca.safetensors")
    ...
    return folder
