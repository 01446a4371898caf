"""What the page takes for granted, made up: pictures in ImageNet's folders, and networks with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers
from page import Command
from PIL import Image
from safetensors.torch import save_file

from lwd.data.npz import write_npz
from lwd.encoders.semvae import SemVAE
from lwd.encoders.vae import SDVAE
from lwd.encoders.vision import random_patch_encoder, vision_model
from lwd.experiment import Experiment
from lwd.runtime.seeding import Stream, seeded

WEIGHTS = Path("weights")
VAE, SEMVAE = WEIGHTS / "sd-vae.ckpt", WEIGHTS / "semvae.pt"
FIRST_SYNSET = 1_440_764
SIZES = ((500, 375), (375, 500), (333, 500), (256, 256), (1200, 800), (300, 180))
"""Of the pictures, width and height, in turn: most of ImageNet's, a small and a large one."""


def write_images(folder: Path, count: int, classes: int, seed: int) -> None:
    """``count`` JPEGs of assorted sizes over ``classes`` synsets; one is grey, as some of ImageNet's are."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        synset = f"n{FIRST_SYNSET + number % classes:08d}"
        path = folder / synset / f"{synset}_{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        picture = coarse.resize(SIZES[number % len(SIZES)], Image.Resampling.BICUBIC)
        (picture.convert("L") if number == 1 else picture).save(path, "JPEG", quality=90)


def write_weights(experiments: list[Experiment]) -> None:
    """SD-VAE and SemVAE in the files of their releases, and folders of the vision transformers that are named."""
    WEIGHTS.mkdir()
    transformers.utils.logging.disable_progress_bar()
    torch.save({"state_dict": SDVAE.random().released_state_dict()}, VAE)
    names = {config.encode.semantic.encoder for config in experiments}
    names |= {config.encode.repa.encoder for config in experiments} - {"semantic", "none"}
    for name in sorted(names):
        random_patch_encoder(name).model.save_pretrained(WEIGHTS / name)
    with seeded(Stream.INITIALISE, 0):
        semvae = SemVAE(vision_model("dinov2-b").width, heads=8)
    torch.save({"model_state_dict": semvae.state_dict()}, SEMVAE)


def write_released_shards(folder: Path, ours: Path) -> None:
    """``folder``/train with the shards and statistics of ``ours``/train, and no manifest: what SFD's release has."""
    (folder / "train").mkdir(parents=True)
    for file in (ours / "train").iterdir():
        if file.name.endswith((".safetensors", "_stats.pt")):
            (folder / "train" / file.name).symlink_to(file.resolve())


def write_evaluation(command: Command, reference: Path, val: Path) -> None:
    """The files that `lwd evaluate` names and that are not there: a batch in ADM's form, and Inception's weights."""
    if reference.suffix == ".npz" and not reference.exists():
        files = sorted(val.rglob("*.JPEG"))
        pictures = np.stack([np.asarray(Image.open(file).convert("RGB").resize((256, 256))) for file in files])
        reference.parent.mkdir(parents=True, exist_ok=True)
        write_npz(reference, [pictures], np.arange(len(files)), (256, 256))
    for word in command.overrides:
        key, _, value = word.partition("=")
        if key == "evaluate.weights" and not Path(value).exists():
            _write_inception(Path(value))


def _write_inception(path: Path) -> None:
    from lwd.evaluate import FidInception

    path.parent.mkdir(parents=True, exist_ok=True)
    with seeded(Stream.INITIALISE, 0):
        weights = FidInception().state_dict()
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
