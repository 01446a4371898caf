"""Measures of two sets of images by their features: torch and numpy are all that these need."""

from lwd.metrics.frechet import fid, frechet_distance, gaussian_stats
from lwd.metrics.inception import FidInception, InceptionFeatures
from lwd.metrics.inception_score import inception_score
from lwd.metrics.kid import KernelDistance, kernel_distance
from lwd.metrics.moments import Moments
from lwd.metrics.precision_recall import Manifold, PrecisionRecall, manifold_metrics, precision_recall

__all__ = [
    "FidInception",
    "InceptionFeatures",
    "KernelDistance",
    "Manifold",
    "Moments",
    "PrecisionRecall",
    "fid",
    "frechet_distance",
    "gaussian_stats",
    "inception_score",
    "kernel_distance",
    "manifold_metrics",
    "precision_recall",
]
