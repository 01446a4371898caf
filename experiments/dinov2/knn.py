"""Which layer of a vision transformer knows the classes? k nearest neighbours by cosine in the mean of its patches.

python experiments/dinov2/knn.py runs/dinov2-small --layers 8,9,10,11,12
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lwd.datasets.builtin import load
from lwd.encoders.vision import TransformersEncoder, load_transformers_encoder


def pooled(encoder: TransformersEncoder, images: Tensor, batch: int = 50) -> Tensor:
    """Images (N, c, H, H) -> means of patch features (N, D), of length 1."""
    means = [encoder.patch_features(part).mean((2, 3)) for part in images.split(batch)]
    return normalize(torch.cat(means), dim=1)


def main() -> None:
    """Print the accuracy at each layer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a folder, or a Hub id")
    parser.add_argument("--dataset", default="fashion-mnist")
    parser.add_argument("--layers", default="10,12")
    parser.add_argument("--factor", type=int, default=4, help="pixels for each position of the grid")
    parser.add_argument("--train", type=int, default=1500)
    parser.add_argument("--heldout", type=int, default=500)
    parser.add_argument("--neighbours", type=int, default=10)
    chosen = parser.parse_args()
    known, labels = (part[: chosen.train] for part in load(chosen.dataset, "train"))
    asked, truth = (part[: chosen.heldout] for part in load(chosen.dataset, "heldout"))
    for layer in map(int, chosen.layers.split(",")):
        start = time.perf_counter()
        encoder = load_transformers_encoder(chosen.model, chosen.factor, layer=layer)
        near = (pooled(encoder, asked) @ pooled(encoder, known).T).topk(chosen.neighbours).indices
        accuracy = float((labels[near].mode(dim=1).values == truth).double().mean())
        pixels = encoder.plan(known.shape[-1]).pixels
        print(f"layer {layer}: {accuracy:.3f} at {pixels} pixels ({time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
