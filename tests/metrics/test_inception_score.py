"""The Inception Score against its known values and a NumPy transcription."""

import math

import numpy as np
import pytest
import torch

from lwd.metrics import inception_score


def logits(rows=2000, classes=64, seed=0, scale=3.0):
    return scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def transcription(x, split_size):
    """Salimans et al. 2016, as ADM's evaluator loops over it."""
    p = np.exp(x.numpy() - x.numpy().max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    scores = []
    for start in range(0, len(p), split_size):
        part = p[start : start + split_size]
        scores.append(np.exp(np.mean(np.sum(part * (np.log(part) - np.log(part.mean(0, keepdims=True))), 1))))
    return np.mean(scores)


@pytest.mark.parametrize("split_size", [5000, 2000, 700, 1])
def test_the_definition(split_size):
    x = logits()
    assert inception_score(x, split_size) == pytest.approx(transcription(x, split_size), rel=1e-12)


@pytest.mark.parametrize("classes", [2, 10, 1008])
def test_certain_and_balanced_is_the_number_of_classes(classes):
    x = 1e6 * torch.eye(classes).repeat(3, 1)
    assert inception_score(x) == pytest.approx(classes, rel=1e-12)


def test_the_same_prediction_everywhere_is_one():
    assert inception_score(torch.zeros(50, 10)) == pytest.approx(1, rel=1e-14)
    assert inception_score(1e6 * torch.eye(10)[:1].repeat(50, 1)) == pytest.approx(1, rel=1e-14)


def test_splits_are_averaged_and_the_last_may_be_short():
    """Four certain images of four classes, then two of one class: (4 + 1) / 2 with splits of four."""
    x = 1e6 * torch.eye(4)[[0, 1, 2, 3, 0, 0]]
    assert inception_score(x, 4) == pytest.approx(2.5)


def test_order_matters_between_splits_only():
    x = logits(100)
    assert inception_score(x.flip(0)) == pytest.approx(inception_score(x), rel=1e-12)


def test_half_certain():
    """Two classes at (1 - e, e) and (e, 1 - e): exp(log 2 - H(e)), the entropy's closed form."""
    e = 0.1
    x = torch.tensor([[1 - e, e], [e, 1 - e]], dtype=torch.float64).log()
    entropy = -e * math.log(e) - (1 - e) * math.log(1 - e)
    assert inception_score(x) == pytest.approx(2 * math.exp(-entropy), rel=1e-14)


def test_a_constant_does_not_matter_nor_does_single_precision():
    x = logits(300).float()
    assert inception_score(x + 100.0) == pytest.approx(inception_score(x.double()), rel=1e-4)  # float32 at 100


@pytest.mark.parametrize(
    ("x", "split_size", "words"),
    [
        (torch.zeros(3), 5, r"shape \(N, classes\), got \(3,\)"),
        (torch.zeros(0, 3), 5, "shape"),
        (torch.full((2, 3), float("nan")), 5, "not finite"),
        (torch.zeros(2, 3), 0, "split_size must be at least 1"),
    ],
)
def test_errors(x, split_size, words):
    with pytest.raises(ValueError, match=words):
        inception_score(x, split_size)
