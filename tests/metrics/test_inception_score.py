"""The Inception Score against its known values and a NumPy transcription."""

import math

import numpy as np
import pytest
import torch

from lwd.metrics import inception_score
from lwd.metrics.inception_score import score_in_random_order


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


def images_of(labels, sure=6.0):
    """Logits of a classifier that is sure of each image's class."""
    return sure * torch.nn.functional.one_hot(labels, 10).double()


def mixed(count):
    return images_of(torch.randint(10, (count,), generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(("count", "split"), [(2000, 500), (2001, 500), (1500, 1000)])
def test_random_orders_by_hand(count, split):
    """The mean over orders drawn otherwise, of the definition itself; tolerance: four deviations of either mean."""
    x = mixed(count)[torch.arange(count)]
    found = score_in_random_order(x, split, seed=3, orders=16)
    by_hand = [inception_score(x[torch.randperm(count)], split) for _ in range(16)]
    assert abs(found.mean - np.mean(by_hand)) < 4 * (found.deviation + np.std(by_hand)) / 16**0.5
    assert 0 < found.deviation < 0.05 and found == score_in_random_order(x, split, seed=3, orders=16)


def test_random_orders_of_one_split_are_the_score():
    x = mixed(300)
    assert score_in_random_order(x, 300).mean == pytest.approx(inception_score(x, 300), rel=1e-12)
    assert score_in_random_order(torch.tensor([[0.0, -1e6]] * 4), 2).mean == pytest.approx(1, rel=1e-14)


def test_what_order_and_remainder_do():
    """10 000 images of ten classes; one more; the same class by class: the score, and what it would be mixed."""
    x = 4 * mixed(10_000)  # all but certain
    whole, more, sorted_ = inception_score(x), inception_score(x[[*range(10_000), 0]]), inception_score(by_class(x))
    assert whole == pytest.approx(10, abs=0.05)  # of classes drawn at random, nearly as many of each
    assert more == pytest.approx((2 * whole + 1) / 3, abs=1e-3)  # a third split, of one image
    assert sorted_ == pytest.approx(5, abs=0.1)  # five classes in each split, and a few of a sixth
    mixed_, mixed_more = score_in_random_order(by_class(x)), score_in_random_order(x[[*range(10_000), 0]])
    assert mixed_.mean == pytest.approx(whole, abs=0.02) and mixed_more.mean == pytest.approx(more, abs=0.02)


def by_class(x):
    return x[x.argmax(1).argsort(stable=True)]


def test_random_orders_refuse():
    with pytest.raises(ValueError, match="orders must be at least 2"):
        score_in_random_order(mixed(10), orders=1)
    with pytest.raises(ValueError, match="not finite"):
        score_in_random_order(torch.full((4, 2), torch.nan))
