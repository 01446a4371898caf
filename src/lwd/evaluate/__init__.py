"""Evaluation of generated images."""

from lwd.evaluate.frechet import frechet_distance, gaussian_stats
from lwd.evaluate.inception import FidInception, InceptionFeatures
from lwd.evaluate.inception_score import inception_score
from lwd.evaluate.kid import KernelDistance, kernel_distance
from lwd.evaluate.manifold import Manifold, PrecisionRecall, manifold_metrics, precision_recall
from lwd.evaluate.moments import Moments
from lwd.evaluate.run import EvaluateConfig, EvaluateSettings, Evaluation, judge_images, real_images, run

__all__ = [
    "EvaluateConfig",
    "EvaluateSettings",
    "Evaluation",
    "FidInception",
    "InceptionFeatures",
    "KernelDistance",
    "Manifold",
    "Moments",
    "PrecisionRecall",
    "frechet_distance",
    "gaussian_stats",
    "inception_score",
    "judge_images",
    "kernel_distance",
    "manifold_metrics",
    "precision_recall",
    "real_images",
    "run",
]
