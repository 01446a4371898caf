"""Evaluation of generated images."""

from lwd.evaluate.frechet import frechet_distance, gaussian_stats
from lwd.evaluate.run import EvaluateConfig, EvaluateSettings, Evaluation, judge_images, real_images, run

__all__ = [
    "EvaluateConfig",
    "EvaluateSettings",
    "Evaluation",
    "frechet_distance",
    "gaussian_stats",
    "judge_images",
    "real_images",
    "run",
]
