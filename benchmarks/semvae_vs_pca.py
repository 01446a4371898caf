"""How much of a patch feature survives compression to k channels: SemVAE against PCA, on held-out images?

    python benchmarks/semvae_vs_pca.py                      # k = 2, 4, 8; under four minutes on one core
    python benchmarks/semvae_vs_pca.py --channels 4 --steps 2000

Features: the 64 channels of the demo's small ViT on scikit-learn's digits, 4x4 positions. Prints one row per method and
k: cosine (mean over positions), MSE (over all entries), and MSE as a share of the features' variance ("unexplained"),
all held out. "joint PCA" projects the 16 positions of an image together, to 16 k numbers: the best linear code of the
same size.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from lwd.config import load
from lwd.data.features import FeatureShards
from lwd.encoders.pca import PatchPCA
from lwd.encoders.semvae import load_semvae
from lwd.stages.encode.run import run as encode
from lwd.stages.experiment import Experiment
from lwd.stages.semvae import run

CONFIG = Path(__file__).parents[1] / "configs" / "digits.yaml"


def score(name: str, channels: int, reconstruction: Tensor, features: Tensor, seconds: float) -> None:
    """Print one row; reconstruction and features are (N, D, h, w)."""
    cosine = float(F.cosine_similarity(reconstruction, features, dim=1).mean())
    mse = float(F.mse_loss(reconstruction, features))
    variance = float((features - features.mean((0, 2, 3), keepdim=True)).square().mean())
    print(f"| {channels} | {name} | {cosine:.3f} | {mse:.3f} | {mse / variance:.1%} | {seconds:.1f} |", flush=True)


@torch.no_grad()
def linear(channels: int, train: Tensor, heldout: Tensor) -> None:
    """Both PCAs."""
    for name, shape in (("PCA", heldout.shape[1:]), ("joint PCA", (heldout[0].numel(), 1, 1))):
        start = time.perf_counter()
        fit, test = train.reshape(-1, *shape), heldout.reshape(-1, *shape)
        numbers = channels if name == "PCA" else channels * heldout.shape[2] * heldout.shape[3]
        pca = PatchPCA(numbers).fit_stream(fit.split(256))
        reconstruction = pca.decode(pca.encode(test)).reshape(heldout.shape)
        score(name, channels, reconstruction, heldout, time.perf_counter() - start)


@torch.no_grad()
def measure_semvae(channels: int, options: list[str], output: Path, heldout: Tensor) -> None:
    """Train by `lwd semvae`'s own code, then score."""
    start = time.perf_counter()
    overrides = [*options, f"output={output}", f"semvae.channels={channels}"]
    with torch.enable_grad():
        model = load_semvae(run(load(Experiment, CONFIG, overrides)))
    seconds = time.perf_counter() - start
    score("SemVAE", channels, model.decode(model.encode(heldout)), heldout, seconds)


def main() -> None:
    """Parse arguments, encode, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), {platform.machine()}, {platform.system()}")
    with tempfile.TemporaryDirectory() as folder:
        quiet = ["compute.progress=false", "compute.checkpoint_every=0"]
        data = encode(load(Experiment, CONFIG, [*quiet, f"output={folder}"]))
        train, heldout = (
            shards.read(torch.arange(len(shards))).float()
            for shards in (FeatureShards(data / split) for split in ("train", "heldout"))
        )
        options = [
            *quiet,
            f"data.path={data}",
            f"semvae={{steps: {arguments.steps}, batch: {arguments.batch}, lr: {arguments.lr}, warmup: 50}}",
        ]
        print(f"{len(train)} images to fit, {len(heldout)} held out, features {tuple(train.shape[1:])}\n")
        print("| channels | method | cosine | MSE | unexplained | s |\n|---|---|---|---|---|---|")
        for channels in arguments.channels:
            linear(channels, train, heldout)
            measure_semvae(channels, options, Path(folder) / str(channels), heldout)


if __name__ == "__main__":
    main()
