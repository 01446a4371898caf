"""The Kernel Inception Distance against a NumPy transcription and its mean over draws."""

import numpy as np
import pytest
import torch

import lwd.metrics.kid as module
from lwd.evaluation.features import FeatureSet
from lwd.metrics import kernel_distance
from lwd.stages.evaluate.measure import Measurement
from lwd.stages.evaluate.settings import EvaluateSettings


def sets(m=2000, n=1500, dim=64, shift=0.1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(m, dim, generator=generator, dtype=torch.float64),
        shift + 1.1 * torch.randn(n, dim, generator=generator, dtype=torch.float64),
    )


def transcription(x, y):
    """Binkowski et al. 2018, Eq. 4, with sums over all pairs of different points."""
    x, y = x.numpy(), y.numpy()

    def k(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    m, n = len(x), len(y)
    within = [(k(a, a).sum() - np.trace(k(a, a))) / (len(a) * (len(a) - 1)) for a in (x, y)]
    return sum(within) - 2 * k(x, y).sum() / (m * n)


@pytest.mark.parametrize("rows", [100, 777, 2048])
def test_the_definition(rows, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", rows)
    x, y = sets()
    # Differences of means of order 1, taken in float64.
    assert kernel_distance(x, y, None).value == pytest.approx(transcription(x, y), abs=1e-13)


def test_by_hand():
    """One dimension, points 0, 1 against 1, 2: kernels (0*1+1)^3 = 1, (1*2+1)^3 = 27, between 1, 1, 8, 27."""
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]])
    assert kernel_distance(x, y, None) == (1 + 27 - 2 * (1 + 1 + 8 + 27) / 4, 0.0)


def test_subsets_of_everything_are_everything():
    x, y = sets(50, 50)
    result = kernel_distance(x, y, 5, 1000)
    assert result.value == pytest.approx(kernel_distance(x, y, None).value, abs=1e-13)
    assert result.deviation < 1e-13


def test_subsets_estimate_the_whole():
    x, y = sets()
    result = kernel_distance(x, y, 100, 200)
    # The standard error of a mean of 100, generously as if subsets were independent; five of them.
    assert abs(result.value - kernel_distance(x, y, None).value) < 5 * result.deviation / 10
    assert result.deviation > 0


def test_the_seed_decides():
    x, y = sets(300, 300)
    assert kernel_distance(x, y, 5, 50, seed=3) == kernel_distance(x, y, 5, 50, seed=3)
    assert kernel_distance(x, y, 5, 50, seed=3) != kernel_distance(x, y, 5, 50, seed=4)


def test_unbiased():
    """Two sets of one law: estimates scatter around 0, below it as often as above."""
    x = torch.randn(200, 2, 60, 5, generator=torch.Generator().manual_seed(0))
    values = [kernel_distance(a, b, None).value for a, b in x]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error
    assert min(values) < 0 < max(values)


def test_order_does_not_matter():
    x, y = sets(200, 300)
    assert kernel_distance(x.flip(0), y.flip(0), None).value == pytest.approx(
        kernel_distance(x, y, None).value, abs=1e-13
    )


def test_errors():
    x, y = sets(10, 10, 4)
    with pytest.raises(ValueError, match="different widths, 4 and 3"):
        kernel_distance(x, y[:, :3])
    with pytest.raises(ValueError, match="reference: needs at least 2 rows"):
        kernel_distance(x[:1], y)
    with pytest.raises(ValueError, match="samples: features are not finite in row 7"):
        kernel_distance(x, y.index_fill(0, torch.tensor(7), float("nan")))
    with pytest.raises(ValueError, match="features must be real"):
        kernel_distance(x, y.long())
    with pytest.raises(ValueError, match="at least 1 subset"):
        kernel_distance(x, y, 0)


@pytest.mark.parametrize("shift", [0.05, 0.5])
def test_its_interval_holds_the_noise_of_the_subsets(shift: float) -> None:
    """60 sets of 600 samples against one reference, 10 subsets of 60 each: the standard error is the deviation between
    sets within 30 % (9 % sampling error of a deviation), several times that of the images alone where the sets are near
    each other."""
    reference = {"pool": torch.randn(600, 4, generator=torch.Generator().manual_seed(0))}
    settings = EvaluateSettings(kid_subsets=10, kid_subset_size=60, bootstrap=200)
    values, errors = [], []
    for seed in range(60):
        x = torch.randn(600, 4, generator=torch.Generator().manual_seed(1 + seed)) + shift
        sides = [FeatureSet({}, {"path": name}, part) for name, part in (("x", {"pool": x}), ("r", reference))]
        found = Measurement(*sides, settings.model_copy(update={"seed": seed}), torch.device("cpu"), print).run(["kid"])
        values.append(found.values["kid"])
        errors.append(found.intervals["kid"]["standard_error"])
        assert found.details["kid"]["subset_deviation"] > 0
    assert torch.tensor(errors).mean() == pytest.approx(float(torch.tensor(values).std()), rel=0.3)
