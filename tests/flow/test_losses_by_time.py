"""Losses by local time against NumPy's histogram."""

import numpy as np
import pytest
import torch

from lwd.flow import TIME_BINS, losses_by_time


def histogram(losses, times, bins):
    sums = [np.histogram(t, bins, (0, 1), weights=w)[0] for t, w in zip(times.T, losses.T, strict=True)]
    return np.array(sums), np.array([np.histogram(t, bins, (0, 1))[0] for t in times.T])


@pytest.mark.parametrize("bins", [1, TIME_BINS, 16])
@pytest.mark.parametrize(("size", "groups"), [(1, 1), (7, 2), (500, 3)])
def test_sums_and_counts_are_those_of_a_histogram(size, groups, bins):
    generator = torch.Generator().manual_seed(size)
    times = torch.rand(size, groups, generator=generator) ** 2
    losses = torch.rand(size, groups, generator=generator) + 0.5
    sums, counts = losses_by_time(losses, times, bins)
    expected_sums, expected_counts = histogram(losses.double().numpy(), times.double().numpy(), bins)
    assert sums.shape == counts.shape == (groups, bins)
    np.testing.assert_array_equal(counts.numpy(), expected_counts)
    np.testing.assert_allclose(sums.numpy(), expected_sums, rtol=1e-5)  # float32 sums of at most 500 numbers
    assert counts.sum() == size * groups


def test_edges_belong_to_the_bin_above_and_one_to_the_last():
    times = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])[:, None]
    _, counts = losses_by_time(torch.ones_like(times), times)
    assert TIME_BINS == 5 and counts.tolist() == [[1, 1, 1, 1, 2]]
    np.testing.assert_array_equal(counts.numpy(), histogram(np.ones((6, 1)), times.numpy(), 5)[1])


def test_groups_are_told_apart():
    times = torch.tensor([[0.1, 0.9], [0.1, 0.5]])
    losses = torch.tensor([[1.0, 10.0], [2.0, 20.0]])
    sums, counts = losses_by_time(losses, times)
    assert sums.tolist() == [[3, 0, 0, 0, 0], [0, 0, 20, 0, 10]]
    assert counts.tolist() == [[2, 0, 0, 0, 0], [0, 0, 1, 0, 1]]


def test_a_loss_that_is_no_number_spoils_only_its_bin_and_no_graph_is_kept():
    losses = torch.tensor([[torch.nan], [2.0]], requires_grad=True)
    sums, _ = losses_by_time(losses, torch.tensor([[0.1], [0.9]]))
    assert sums[0].isnan().tolist() == [True, False, False, False, False] and sums[0, 4] == 2
    assert not sums.requires_grad
