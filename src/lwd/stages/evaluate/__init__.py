"""Evaluation of generated images."""

from lwd.evaluation.features import FeatureSet
from lwd.evaluation.images import Images
from lwd.metrics.frechet import frechet_distance, gaussian_stats
from lwd.metrics.inception import FidInception, InceptionFeatures
from lwd.metrics.inception_score import inception_score
from lwd.metrics.kid import KernelDistance, kernel_distance
from lwd.metrics.moments import Moments
from lwd.metrics.precision_recall import Manifold, PrecisionRecall, manifold_metrics, precision_recall
from lwd.stages.evaluate.record import Evaluation
from lwd.stages.evaluate.run import run, save_only
from lwd.stages.evaluate.settings import EvaluateConfig, EvaluateOnly, EvaluateSettings
from lwd.stages.evaluate.table import compare

__all__ = [
    "EvaluateConfig",
    "EvaluateOnly",
    "EvaluateSettings",
    "Evaluation",
    "FeatureSet",
    "FidInception",
    "Images",
    "InceptionFeatures",
    "KernelDistance",
    "Manifold",
    "Moments",
    "PrecisionRecall",
    "compare",
    "frechet_distance",
    "gaussian_stats",
    "inception_score",
    "kernel_distance",
    "manifold_metrics",
    "precision_recall",
    "run",
    "save_only",
]
