"""The Inception Score (Salimans et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor


def inception_score(logits: Tensor, split_size: int = 5000) -> float:
    """The Inception Score: exp of the mean KL divergence of each image's classes from all images', averaged over
    splits.

    ``logits`` (N, classes); splits follow each other, the last may be shorter, as ADM's evaluator has it. It takes
    logits without bias. In float64, and a class of probability 0 adds nothing (ADM's formula gives NaN). Between 1 and
    the number of classes. Raises ValueError for another shape, no rows, and values that are not finite.
    """
    if logits.ndim != 2 or 0 in logits.shape:
        raise ValueError(f"logits must have shape (N, classes), got {tuple(logits.shape)}")
    if split_size < 1:
        raise ValueError(f"split_size must be at least 1, got {split_size}")
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("logits are not finite")
    return float(torch.stack([_score(part) for part in torch.split(logits, split_size)]).mean())


def _score(logits: Tensor) -> Tensor:
    log_p = logits.double().log_softmax(1)
    # The mean in logarithms, so that a class that underflows to 0 stays comparable with itself.
    log_mean = log_p.logsumexp(0) - torch.tensor(len(log_p), dtype=torch.float64).log()
    return (log_p.exp() * (log_p - log_mean)).sum(1).mean().exp()
