"""How far apart two sets of images are, and how many show their class, from the features of both."""

from __future__ import annotations

import torch
from torch import Tensor

from lwd.evaluation.features import FeatureSet
from lwd.metrics.frechet import frechet_distance
from lwd.metrics.moments import Gaussian


def frechet_between(
    samples: FeatureSet, reference: FeatureSet, kind: str, device: torch.device
) -> tuple[float, Gaussian, Gaussian] | None:
    """The Fréchet distance in features of one ``kind``, and the statistics of both sides; None where a side has none.

    Raises ValueError where the statistics do not go together.
    """
    ours, theirs = (side.gaussian(kind, device) for side in (samples, reference))
    if ours is None or theirs is None:
        return None
    ours = (ours[0].to(device), ours[1].to(device))
    return frechet_distance(*ours, *theirs), ours, theirs


def classified_right(samples: FeatureSet) -> Tensor | None:
    """Which samples (N,) show the class that they were asked for, as 0 or 1 in float64; None of unconditional ones, and
    where the network is no classifier of these classes."""
    logits, labels = samples.features.get("logits"), samples.labels
    if logits is None or labels is None or bool((labels >= logits.shape[1]).any()):
        return None
    return (logits.argmax(1) == labels).double()
