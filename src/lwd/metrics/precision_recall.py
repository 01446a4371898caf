"""Improved precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lwd.metrics.balls import Counted, Reached, see_all
from lwd.metrics.checks import check_pair, full_float32
from lwd.metrics.distances import Points, neighbour_distances

Distances = Literal["exact", "adm-float16"]
"""How distances are computed: see `manifold_metrics`."""


class PrecisionRecall(NamedTuple):
    """Precision and recall, each in [0, 1]."""

    precision: float
    recall: float


@dataclass(frozen=True)
class Manifold:
    """Precision, recall, density and coverage, and what each image contributes to them, for intervals.

    ``density_k`` None: no density, no coverage.
    """

    precise: Tensor
    """(N,) bool: the sample lies in a ball around a reference image."""
    recalled: Tensor
    """(M,) bool: the reference image lies in a ball around a sample."""
    balls: Tensor | None
    """(N,) int64: in how many balls around reference images the sample lies."""
    covered: Tensor | None
    """(M,) bool: the ball around the reference image holds a sample."""
    density_k: int | None

    @property
    def precision(self) -> float:
        """The fraction of samples that look like reference images."""
        return float(self.precise.double().mean())

    @property
    def recall(self) -> float:
        """The fraction of reference images that look like samples."""
        return float(self.recalled.double().mean())

    @property
    def density(self) -> float | None:
        """Mean number of reference balls around a sample, by ``density_k``: 1 where both sets have one law."""
        return None if self.balls is None or not self.density_k else float(self.balls.double().mean()) / self.density_k

    @property
    def coverage(self) -> float | None:
        """The fraction of reference images with a sample nearby."""
        return None if self.covered is None else float(self.covered.double().mean())


def precision_recall(reference: Tensor, samples: Tensor, k: int = 3, distances: Distances = "exact") -> PrecisionRecall:
    """Measure improved precision and recall of features (M, D) and (N, D); see `manifold_metrics`."""
    result = manifold_metrics(reference, samples, k, None, distances)
    return PrecisionRecall(result.precision, result.recall)


@torch.no_grad()
def manifold_metrics(
    reference: Tensor,
    samples: Tensor,
    k: int = 3,
    density_k: int | None = 5,
    distances: Distances = "exact",
    block: int = 2048,
) -> Manifold:
    """Measure precision, recall, density and coverage of samples (N, D) against reference features (M, D).

    A set's manifold is the union of balls around its features, each reaching to the k-th nearest *other* feature of its
    set. Precision and recall take closed balls (as Kynkäänniemi's and ADM's code), density and coverage open ones (as
    Naeem's). No more than a few ``block`` x ``block`` distances are held.

    ``distances``: "exact" computes in float32 about the common mean, and again in float64 wherever rounding could
    decide, so that ties, copies and order do what the definition says. "adm-float16" gives the numbers of ADM's
    evaluator, whose features, squared norms, products and sums are rounded to float16: the third digit of a squared
    distance is lost, and neighbours change places (on one constructed case precision 0.8755 and recall 0.1916, against
    0.8752 and 0.1912). It has no density. Raises ValueError for different widths, values that are not finite, and sets
    of no more than k features.
    """
    check_pair(reference, samples)
    largest = max(k, density_k or 0)
    fewest = min(len(reference), len(samples))
    if k < 1 or (density_k is not None and density_k < 1) or fewest <= largest:
        raise ValueError(f"k must be at least 1 and below the number of features, {fewest}; got {k} and {density_k}")
    if distances not in ("exact", "adm-float16"):
        raise ValueError(f"distances must be 'exact' or 'adm-float16', got {distances!r}")
    if distances == "adm-float16":
        if density_k is not None:
            raise ValueError("ADM's float16 distances are for precision and recall: give density_k=None")
        from lwd.metrics.adm_distances import adm_manifold

        return Manifold(*adm_manifold(reference, samples, k), None, None, None)
    with full_float32(reference.device):
        centre = torch.cat([reference.double().mean(0, True), samples.double().mean(0, True)]).mean(0)
        real, fake = Points(reference, centre), Points(samples, centre)
        ks = [k] if density_k is None else [k, density_k]
        real_reach = neighbour_distances(real, ks, block)
        fake_reach = neighbour_distances(fake, [k], block)
        precise = Reached(real, fake, real_reach[0], "rows", "columns", open_balls=False)
        recalled = Reached(real, fake, fake_reach[0], "columns", "rows", open_balls=False)
        if density_k is None:
            see_all(real, fake, block, [precise, recalled])
            return Manifold(precise.answer(), recalled.answer(), None, None, None)
        balls = Counted(real, fake, real_reach[1])
        covered = Reached(real, fake, real_reach[1], "rows", "rows", open_balls=True)
        see_all(real, fake, block, [precise, recalled, balls, covered])
        return Manifold(precise.answer(), recalled.answer(), balls.counts, covered.answer(), density_k)
