"""What the page takes for granted, made up: pictures in ImageNet's folders, and networks with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image

from lwd.encoders.semvae import SemVAE
from lwd.encoders.vae import SDVAE
from lwd.encoders.vision import random_patch_encoder, vision_model
from lwd.images.npz import write_npz
from lwd.metrics import FidInception
from lwd.runtime.seeding import Stream, seeded
from lwd.stages.experiment import Experiment

WEIGHTS = Path("weights")
VAE, SEMVAE, INCEPTION = (WEIGHTS / name for name in ("sd-vae.ckpt", "semvae.pt", "inception.pth"))
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


def write_reference(path: Path, pictures: Path) -> None:
    """A batch of reference images in ADM's form, made of the pictures in a folder."""
    files = sorted(pictures.rglob("*.JPEG"))
    images = np.stack([np.asarray(Image.open(file).convert("RGB").resize((256, 256))) for file in files])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_npz(path, [images], np.arange(len(files)), (256, 256))


def write_inception() -> None:
    """Inception with random weights, in the form of the published PyTorch port."""
    with seeded(Stream.INITIALISE, 0):
        torch.save(FidInception().state_dict(), INCEPTION)
