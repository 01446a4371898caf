"""Evaluation of generated images."""

from lwd.evaluate.compare import compare
from lwd.evaluate.featureset import FeatureSet
from lwd.evaluate.frechet import frechet_distance, gaussian_stats
from lwd.evaluate.inception import FidInception, InceptionFeatures
from lwd.evaluate.inception_score import inception_score
from lwd.evaluate.kid import KernelDistance, kernel_distance
from lwd.evaluate.manifold import Manifold, PrecisionRecall, manifold_metrics, precision_recall
from lwd.evaluate.moments import Moments
from lwd.evaluate.record import Evaluation
from lwd.evaluate.run import run, save_only
from lwd.evaluate.settings import EvaluateConfig, EvaluateOnly, EvaluateSettings
from lwd.evaluate.sources import Images

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
