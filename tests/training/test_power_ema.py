"""Power-function averages against sums over the whole trajectory of weights, by the closed form of their profile."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lwd.runtime.checkpoint import Files
from lwd.training.power_ema import (
    WIDEST,
    PosthocEMA,
    coefficients,
    drop_snapshots,
    find_averages,
    gamma_of,
    misfit,
    overlaps,
    power_decay,
    sigma_rel_of,
)
from lwd.training.writer import CheckpointWriter

WIDTHS = (0.05, 0.10)


def profile(step, gamma, steps):
    """How much of the weights after each step k = 1..steps the average after ``step`` holds: the integral over [k-1, k]
    of (gamma + 1) tau^gamma / step^(gamma + 1); derived by hand, independent of beta_t."""
    k = np.minimum(np.arange(steps + 1), step) / step
    return np.diff(k ** (gamma + 1))


def wandering(steps, seed=0):
    """A trajectory of weights that drifts and settles, (steps, 20) float64."""
    generator = np.random.default_rng(seed)
    size = 1 / np.sqrt(np.arange(1, steps + 1))
    return 1 + np.cumsum(generator.normal(size=(steps, 20)) * size[:, None], axis=0) * 0.2


@pytest.mark.parametrize(("width", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_the_papers_exponents(width, gamma):
    assert gamma_of(width) == pytest.approx(gamma, abs=0.005)  # as printed, two decimals
    assert sigma_rel_of(gamma_of(width)) == pytest.approx(width, rel=1e-12)


@pytest.mark.parametrize("width", [0.01, 0.03, 0.08, 0.15, 0.25, 0.288])
def test_the_width_is_the_standard_deviation_of_the_profile(width):
    steps = 100_000
    weight = profile(steps, gamma_of(width), steps)
    when = (np.arange(steps) + 0.5) / steps
    mean = (weight * when).sum()
    assert weight.sum() == pytest.approx(1, abs=1e-12)
    # a midpoint rule with 1e-5 steps on a profile at least 0.01 wide
    assert ((weight * (when - mean) ** 2).sum()) ** 0.5 == pytest.approx(width, rel=1e-5)
    assert gamma_of(WIDEST) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_average_is_the_weighted_sum_of_all_weights_so_far(dtype):
    steps = 300
    theta = wandering(steps)
    model = nn.Linear(20, 1, bias=False).to(dtype)
    averages = PosthocEMA(model, WIDTHS)
    for step in range(1, steps + 1):
        with torch.no_grad():
            model.weight.copy_(torch.from_numpy(theta[step - 1])[None])
        averages.update(step)
        if step in (1, 2, 17, steps):
            for width, average in averages.averages.items():
                expected = profile(step, gamma_of(width), steps) @ theta
                # float64: rounding of 300 interpolations; float32: of numbers up to 4, the newest 30 or so matter
                tolerance = 1e-12 if dtype == torch.float64 else 3e-6
                np.testing.assert_allclose(average.model.weight[0].double().numpy(), expected, rtol=0, atol=tolerance)


def test_decay_by_hand():
    assert power_decay(6.94, 1) == 0
    assert power_decay(1.0, 2) == 0.25
    assert power_decay(6.94, 1000) == pytest.approx(0.999**7.94, rel=1e-12)


def test_overlaps_against_integrals():
    """Of profiles of which one ends first, either way round, and of one with itself."""
    tau, width = np.linspace(0, 1, 200_001)[:-1] + 2.5e-6, 5e-6

    def density(t, gamma):
        return np.where(tau < t, (gamma + 1) / t * (tau / t) ** gamma, 0)

    ours = overlaps([0.4, 1.0], [6.94, 2.0], [1.0, 0.3, 0.4], [16.97, 3.0, 6.94])
    for a, (ta, ga) in enumerate([(0.4, 6.94), (1.0, 2.0)]):
        for b, (tb, gb) in enumerate([(1.0, 16.97), (0.3, 3.0), (0.4, 6.94)]):
            integral = (density(ta, ga) * density(tb, gb)).sum() * width
            assert ours[a, b] == pytest.approx(integral, rel=1e-4, abs=1e-12)  # the jump at the end costs a cell


def snapshots(steps, every):
    theta = wandering(steps)
    pairs = [(t, w) for t in range(every, steps + 1, every) for w in WIDTHS]
    stored = np.array([profile(t, gamma_of(w), steps) @ theta for t, w in pairs])
    return theta, *zip(*pairs, strict=True), stored


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("step", [1000, 2000])
def test_a_tracked_width_comes_back(width, step):
    theta, times, widths, stored = snapshots(2000, 50)
    parts = coefficients(times, widths, step, width)
    np.testing.assert_allclose(parts @ stored, profile(step, gamma_of(width), 2000) @ theta, rtol=0, atol=1e-10)
    assert misfit(parts, times, widths, step, width) < 1e-6  # a root of rounding


# The bounds are twice the largest error of 20 weights of size 1 measured here; step 1730 has no snapshot.
@pytest.mark.parametrize(
    ("width", "step", "bound"),
    [(0.08, 2000, 5e-6), (0.15, 2000, 1.4e-5), (0.20, 2000, 3e-4), (0.03, 2000, 1.2e-4), (0.12, 1730, 7e-4)],
)
def test_other_widths_against_the_whole_trajectory(width, step, bound):
    theta, times, widths, stored = snapshots(2000, 50)
    wanted = profile(step, gamma_of(width), 2000)
    parts = coefficients(times, widths, step, width)
    error = np.abs(parts @ stored - wanted @ theta).max()
    assert error < bound
    nearest = min(np.abs(one - wanted @ theta).max() for one in stored)
    assert error < 0.1 * nearest  # no stored average would have done
    assert parts.sum() == pytest.approx(1, abs=1e-12)
    found = parts @ np.array([profile(t, gamma_of(w), 2000) for t, w in zip(times, widths, strict=True)])
    measured = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    assert misfit(parts, times, widths, step, width) == pytest.approx(measured, rel=0.15)  # steps against continuous


# What docs/ema.md says, within what 20 weights scatter: a float16 rounding, 2e-4 of a weight's size on average, times
# the root of the coefficients' summed squares, which is 1 or less at the tracked widths and above, and 5.6 at 0.03.
@pytest.mark.parametrize(
    ("width", "least", "most"),
    [
        (0.03, 6e-4, 2e-3),
        (0.05, 1e-4, 3e-4),
        (0.08, 1e-4, 3e-4),
        (0.1, 1e-4, 3e-4),
        (0.15, 8e-5, 3e-4),
        (0.2, 6e-5, 3e-4),
    ],
)
def test_what_float16_costs(width, least, most):
    theta, times, widths, stored = snapshots(2000, 50)
    wanted = profile(2000, gamma_of(width), 2000) @ theta
    found = coefficients(times, widths, 2000, width) @ stored.astype(np.float16).astype(np.float64)
    assert least < np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2)) < most


def test_a_float16_snapshot_rounds_what_trains_and_nothing_else(tmp_path):
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    averages = PosthocEMA(model, (0.1,))
    averages.update(1)
    Files(averages.snapshot("float16")).copied().save(tmp_path)
    stored = load_file(tmp_path / "sigma-0.1.safetensors")
    assert stored["weight"].dtype == torch.float16
    np.testing.assert_array_equal(stored["weight"].numpy(), model.weight.detach().numpy().astype(np.float16))
    assert torch.equal(stored["bias"], model.bias)
    assert torch.equal(averages.averages[0.1].model.weight, model.weight)
    Files(averages.snapshot("float32")).copied().save(tmp_path)
    assert torch.equal(load_file(tmp_path / "sigma-0.1.safetensors")["weight"], model.weight)


def test_it_does_not_save_what_it_cannot_load(tmp_path):
    model = nn.Linear(3, 2)
    averages = PosthocEMA(model, (0.05, 0.1))
    averages.update(1)
    Files(averages.files("there")).save(tmp_path)
    other = PosthocEMA(nn.Linear(3, 2), (0.05, 0.1))
    other.load(tmp_path / "there")
    assert list(find_averages(tmp_path / "there")) == [0.05, 0.1]
    for width in WIDTHS:
        assert torch.equal(other.averages[width].model.weight, model.weight)


def test_snapshots_of_steps_to_be_done_again_are_dropped(tmp_path):
    for name in ("step-00000002", "step-00000004", "step-00000006", ".step-00000006.17.tmp", ".step-00000002.3.old"):
        (tmp_path / name).mkdir()
    drop_snapshots(tmp_path, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000004"]


def test_a_snapshot_is_there_before_the_checkpoint_of_its_step(tmp_path, monkeypatch):
    """Else a run killed between the two would go on behind the snapshot and never write it."""
    written = []
    monkeypatch.setattr("lwd.training.writer.save_checkpoint", lambda folder, *_: written.append(folder))
    with CheckpointWriter(tmp_path, {}) as writer:
        writer.put(3, Files({"a": "x"}), lambda: written.append("afterwards"), Files({"b": "y"}))
    assert written == [tmp_path / "posthoc", tmp_path, "afterwards"]
