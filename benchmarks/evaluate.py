"""What does evaluation cost, stage by stage, beside what it cannot do without?

    python benchmarks/evaluate.py                    # everything; 10 000 x 2048 features, 64 images
    python benchmarks/evaluate.py --scipy            # the Fréchet distance beside scipy.linalg.sqrtm, too
    python benchmarks/evaluate.py --check            # and precision and recall beside all distances in float64

Random weights and images: time does not depend on them. Features have a network's shape (rectified, few directions that
matter, full rank). Ratios are of medians measured in turns in one run: Inception against a large float32 product,
moments against the bare float64 X^T X, the Fréchet distance against `sqrtm`, precision and recall against their three
blocked float32 products and a partial selection in two of them.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np
import torch
from common import DEVICE, against_matmul, machine, median_seconds, record
from torch import Tensor

from lwd.metrics import FidInception, Moments, frechet_distance, manifold_metrics, precision_recall
from lwd.metrics.inception import SIZE
from lwd.metrics.resize import tf1_resize_bilinear

IMAGES = 50_000
FLOP_PER_IMAGE = 11.42e9
"""Two per multiply-add of the convolutions at 299x299."""
BLOCK = 2048
STAGES = ("inception", "frechet", "manifold")


def features(rows: int, dim: int, seed: int, scale: float = 1.0) -> Tensor:
    """(rows, dim) float32."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(24, dim, generator=torch.Generator().manual_seed(7)) / 24**0.5
    noise = torch.randn(rows, dim, generator=generator) / 4
    return (scale * torch.randn(rows, 24, generator=generator) @ mix + noise).relu_().to(DEVICE)


def in_turns(one: Callable[[], object], two: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median seconds of both, measured in turns: machines drift."""
    times = [(median_seconds(one, 1, 0), median_seconds(two, 1, 0)) for _ in range(repeats)]
    first, second = zip(*times, strict=True)
    return statistics.median(first), statistics.median(second)


def inception(arguments: argparse.Namespace) -> None:
    """Images a second, and the resize's share."""
    network = FidInception().to(DEVICE)
    shape = (arguments.images, 3, arguments.size, arguments.size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=DEVICE)
    seconds, rate = against_matmul(lambda: network(images), torch.float32, arguments.repeats)
    resize = median_seconds(lambda: tf1_resize_bilinear(images, SIZE), arguments.repeats)
    of_ceiling = FLOP_PER_IMAGE * arguments.images / seconds / rate
    record("Inception", images_per_s=arguments.images / seconds, share=of_ceiling, resize=resize / seconds)
    print(
        f"Inception, {arguments.images} images of {arguments.size} px: {arguments.images / seconds:.1f} images/s, "
        f"{of_ceiling:.0%} of a float32 product's {rate / 1e9:.0f} GFLOP/s; resize {resize / seconds:.1%}; "
        f"{IMAGES} images: {IMAGES * seconds / arguments.images / 60:.1f} min",
        flush=True,
    )


def moments(x: Tensor, repeats: int) -> Moments:
    """Batches of 64 against X^T X at once."""
    double = x.double()
    total = Moments(x.shape[1], x.device)

    def streamed() -> None:
        nonlocal total
        total = Moments(x.shape[1], x.device)
        for batch in torch.split(x, 64):
            total.add(batch)
        total.covariance()

    seconds, product = in_turns(streamed, lambda: double.T @ double, repeats)
    record("moments", over_product=seconds / product)
    print(
        f"moments, {tuple(x.shape)} in batches of 64: {seconds:.2f} s, {seconds / product:.2f} of the bare product "
        f"({product:.2f} s); {IMAGES} images: {IMAGES * seconds / len(x):.1f} s",
        flush=True,
    )
    return total


def frechet(one: Moments, two: Moments, repeats: int, scipy: bool) -> None:
    """Seconds, and with ``scipy`` the ratio to the usual code."""
    stats = (one.mean, one.covariance(), two.mean, two.covariance())
    value = frechet_distance(*stats)
    if not scipy:
        seconds = median_seconds(lambda: frechet_distance(*stats), repeats, 0)
        record("Fréchet distance", seconds=seconds)
        print(f"Fréchet distance, {one.dim} features: {seconds:.2f} s", flush=True)
        return
    from scipy.linalg import sqrtm

    mu1, sigma1, mu2, sigma2 = (tensor.cpu().numpy() for tensor in stats)
    found: list[float] = []

    def usual() -> None:
        root = sqrtm(sigma1.dot(sigma2))
        trace = np.trace(sigma1) + np.trace(sigma2) - 2 * np.trace(root).real
        found.append(float((mu1 - mu2).dot(mu1 - mu2) + trace))

    seconds, theirs = in_turns(lambda: frechet_distance(*stats), usual, max(1, repeats // 3))
    print(
        f"Fréchet distance, {one.dim} features: {seconds:.2f} s, scipy.linalg.sqrtm {theirs:.1f} s: "
        f"{theirs / seconds:.1f} times faster; {value:.9f}, relative difference {abs(value / found[-1] - 1):.1e}",
        flush=True,
    )


def manifold(x: Tensor, y: Tensor, repeats: int, check: bool) -> None:
    """The ratio to the products and selections that the definition needs."""

    def bare() -> None:
        for one, two, k in ((x, x, 4), (y, y, 4), (x, y, 0)):
            for rows in torch.split(one, BLOCK):
                blocks = [rows @ columns.T for columns in torch.split(two, BLOCK)]
                if k:
                    torch.cat(blocks, 1).topk(k, 1, largest=False, sorted=False)

    value = precision_recall(x, y)
    seconds, least = in_turns(lambda: precision_recall(x, y), bare, repeats)
    record("precision and recall", seconds=seconds, over_products=seconds / least)
    print(
        f"precision and recall, k = 3, {len(x)} and {len(y)} x {x.shape[1]}: {seconds:.2f} s, {seconds / least:.2f} of "
        f"three products and selections ({least:.2f} s); {value.precision:.4f} {value.recall:.4f}",
        flush=True,
    )
    everything = median_seconds(lambda: manifold_metrics(x, y), max(1, repeats // 2), 0)
    print(f"  with density and coverage: {everything:.2f} s", flush=True)
    if check:
        print("  ADM's float16 distances: {:.4f} {:.4f}".format(*precision_recall(x, y, distances="adm-float16")))
        print("  all distances in float64: {:.4f} {:.4f}".format(*plain(x, y)), flush=True)


def plain(x: Tensor, y: Tensor, k: int = 3) -> tuple[float, float]:
    """Precision and recall with all distances at once, in float64."""

    def distances(a: Tensor, b: Tensor) -> Tensor:
        a, b = a.double(), b.double()
        return (a.square().sum(1)[:, None] + b.square().sum(1)).addmm_(a, b.T, alpha=-2)

    radii = [distances(z, z).fill_diagonal_(0).kthvalue(k + 1, 1).values for z in (x, y)]
    between = distances(x, y)
    precise, recalled = (between <= radii[0][:, None]).any(0), (between <= radii[1]).any(1)
    return float(precise.double().mean()), float(recalled.double().mean())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256 if DEVICE == "cuda" else 64)
    parser.add_argument("--size", type=int, default=256, help="pixels a side of the images")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scipy", action="store_true", help="measure scipy.linalg.sqrtm too")
    parser.add_argument("--check", action="store_true", help="compare precision and recall with float64")
    parser.add_argument("--only", choices=STAGES, nargs="+", default=STAGES, help="these stages")
    arguments = parser.parse_args()
    print(machine())
    if "inception" in arguments.only:
        inception(arguments)
    x, y = features(arguments.rows, arguments.dim, 0), features(arguments.rows, arguments.dim, 1, 0.9)
    if "frechet" in arguments.only:
        frechet(moments(x, arguments.repeats), Moments(x.shape[1], x.device).add(y), arguments.repeats, arguments.scipy)
    if "manifold" in arguments.only:
        manifold(x, y, arguments.repeats, arguments.check)


if __name__ == "__main__":
    main()
