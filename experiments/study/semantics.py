"""How much of the texture's uncertainty the semantics remove, by encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import r2_score
from sklearn.neural_network import MLPRegressor

from lwd.data import LatentShards
from lwd.data.shards import Batch
from lwd.groups import Layout

ALPHAS = tuple(10.0**power for power in range(-1, 6))
Array = NDArray[np.float64]


def explained(data: Path, layout: Layout, leader: str, images: int, seed: int = 0) -> dict[str, Any]:
    """Shares of the held-out texture latent's variance, over all its entries, that a regression on the whole image's
    semantic latent explains: 1 - sum of squared errors / sum of squares about the held-out mean.

    r2_ridge: linear, its penalty chosen by leave-one-out; r2_mlp: one hidden layer of 256, stopped early on a tenth of
    the images; r2_label: linear on the class alone; r2_given_label: of what the class leaves, the share that class and
    semantics together explain (linear); label_accuracy: of a linear classifier on the semantic latent.
    """
    sem, tex, labels = _read(data / "train", layout, leader, images)
    sem_held, tex_held, labels_held = _read(data / "heldout", layout, leader, images)
    one_hot, one_hot_held = (np.eye(int(labels.max()) + 1)[each] for each in (labels, labels_held))

    def ridge(x: Array, x_held: Array) -> float:
        return _r2(tex_held, RidgeCV(ALPHAS).fit(x, tex).predict(x_held))

    label = ridge(one_hot, one_hot_held)
    both = ridge(np.hstack([sem, one_hot]), np.hstack([sem_held, one_hot_held]))
    mlp = MLPRegressor(hidden_layer_sizes=(256,), early_stopping=True, max_iter=300, random_state=seed).fit(sem, tex)
    classifier = LogisticRegression(max_iter=500).fit(sem, labels)
    return {
        "r2_ridge": ridge(sem, sem_held),
        "r2_mlp": _r2(tex_held, mlp.predict(sem_held)),
        "r2_label": label,
        "r2_given_label": (both - label) / (1 - label),
        "label_accuracy": float(classifier.score(sem_held, labels_held)),
        "images": len(labels),
        "images_heldout": len(labels_held),
    }


def evenly(shards: LatentShards, images: int) -> Batch:
    """At most so many images, spread evenly over the shards."""
    count = min(images, len(shards))
    return shards.read(torch.arange(count) * len(shards) // count)


def _r2(truth: Array, guess: Array) -> float:
    return float(r2_score(truth, guess, multioutput="variance_weighted"))


def _read(folder: Path, layout: Layout, leader: str, images: int) -> tuple[Array, Array, NDArray[np.int64]]:
    """The leader's latent (N, .) and all others' (N, .), standardised, of evenly spread images, and labels (N,)."""
    shards = LatentShards(folder, layout, flip=False, features=False)
    batch = evenly(shards, images)
    groups = layout.split(batch.x1)
    others = torch.cat([groups[name].flatten(1) for name in layout.names if name != leader], dim=1)
    return groups[leader].flatten(1).double().numpy(), others.double().numpy(), batch.labels.numpy()
