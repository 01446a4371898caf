"""What is measured on samples: the one place that knows how this project evaluates."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lwd.data import LatentShards
from lwd.data.encoded import read_manifest
from lwd.data.samples import SampleSet
from lwd.encoders.decoder import load_classifier, load_decoder
from lwd.groups import Layout
from lwd.images.sheets import to_unit
from lwd.metrics import frechet_distance, gaussian_stats, precision_recall
from lwd.metrics.influence import frechet_influence
from lwd.run import RunConfig

BATCH = 500
REPLICATES = 100
"""Of the bootstrap over samples, kept in each row."""


def measure(config: RunConfig, folder: Path) -> dict[str, Any]:
    """Samples against held-out images in the judge's features.

    frechet, frechet_real (training images in the samples' place: the floor), precision, recall (k = 3), accuracy (the
    judge sees the class asked for), nfe (mean), samples (their number), and replicates: by how much frechet moves where
    samples are drawn again, to first order (`frechet_influence`). The same places are drawn for every row of as many
    samples, and runs of one seed share noise and labels, so that replicates of two rows are paired.
    """
    samples = SampleSet.read(folder)
    judge = read_manifest(config.data_path).judge
    assert judge is not None, "the study's data sets have one"
    images = to_unit(torch.cat(list(samples.images()))[:, : judge.image_channels])
    features, logits = judged(config.data_path, images)
    heldout, real = reference(config.data_path, config.layout)
    gaussian, other = gaussian_stats(features), gaussian_stats(heldout)
    manifold = precision_recall(heldout, features)
    influence = frechet_influence(features, gaussian, other)
    drawn = torch.randint(len(influence), (REPLICATES, len(influence)), generator=torch.Generator().manual_seed(0))
    return {
        "frechet": frechet_distance(*other, *gaussian),
        "frechet_real": real,
        "precision": manifold.precision,
        "recall": manifold.recall,
        "accuracy": float((logits.argmax(1) == samples.labels).double().mean()),
        "nfe": float(samples.nfe.double().mean()),
        "samples": len(samples),
        "replicates": [round(value, 4) for value in influence[drawn].mean(1).tolist()],
    }


@torch.no_grad()
def judged(data: Path, images: Tensor) -> tuple[Tensor, Tensor]:
    """Images (N, c, H, W) in [-1, 1] -> the judge's pooled features (N, D) and logits (N, classes)."""
    judge = load_classifier(data)
    parts = [(judge.pooled(chunk), judge(chunk)) for chunk in torch.split(images, BATCH)]
    return torch.cat([features for features, _ in parts]), torch.cat([logits for _, logits in parts])


@functools.lru_cache(maxsize=2)
def reference(data: Path, layout: Layout) -> tuple[Tensor, float]:
    """Features (N, D) of the held-out images, and the Fréchet distance of the training images to them."""
    heldout, train = (judged(data, real_images(data, layout, split))[0] for split in ("heldout", "train"))
    return heldout, frechet_distance(*gaussian_stats(heldout), *gaussian_stats(train))


def real_images(data: Path, layout: Layout, split: str) -> Tensor:
    """The images of a split (N, c, H, W), decoded from their texture latents."""
    shards = LatentShards(data / split, layout, flip=False, features=False)
    latents = shards.destandardise(shards.read(torch.arange(len(shards))).x1)
    return load_decoder(data).decode(latents, layout)
