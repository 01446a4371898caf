"""The schedule found in a network, on losses that are exact: the ideal denoiser's and an error off a known line."""

import itertools

import numpy as np
import pytest
import torch
from two_gaussians import Gaussian

from lwd.groups import Layout
from lwd.maps import LogSNR, Map
from lwd.maps.infer import MEANS, _least, ahead_of, candidates, circulation, find_line
from lwd.maps.measure import grid_points
from lwd.schedules import Schedule
from lwd.schedules.choice import ScheduleChoice
from lwd.schedules.fixed import PowerOfTime

GRID = LogSNR(17, 8.0)
NAMES = ("s", "f")


def named(text):
    return ScheduleChoice.named(text, "test").fixed(["s", "f"], "s")


def network(schedule, error=10.0, images=64):
    """A map of a network that is the worse the farther it is from a line; images scatter by a tenth."""
    data = Gaussian()
    times = grid_points(data.layout, "s", GRID)
    loss = data.loss(times)[0]
    mean, ahead = times.mean(1).numpy(), ((times[:, 0] - times[:, 1]) / 2).numpy()
    off = torch.from_numpy(ahead - np.interp(mean, MEANS, ahead_of(schedule, NAMES))) if schedule is not None else 0
    whole = (loss + error * (torch.as_tensor(off) ** 2 * torch.ones(len(times)))[:, None]).view(1, 1, 17, 17, 2)
    scatter = 1 + 0.1 * torch.randn(images, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    every = whole * scatter.view(1, -1, 1, 1, 1)
    return Map(data.layout, "s", GRID, 1, every, every)


@pytest.mark.parametrize("text", ["synchronous", "offset:0.3", "offset:-0.3", "power:2", "power:5", "power:-3"])
def test_the_line_is_found_in_every_direction(text):
    """Within 0.03 in either time: half a cell of the 17 points is 0.06 in the middle; and the interval holds it."""
    found = find_line(network(named(text)))
    assert found.clear and found.distance(named(text)) < 0.03 and found.holds(named(text))
    if text != "synchronous":
        assert found.leader == ("f" if "-" in text else "s")
    family = {one.name.partition(":")[0]: one for one in candidates(found, NAMES)}[text.partition(":")[0]]
    assert family.held and family.distance < 0.03


@pytest.mark.parametrize("error", [0.0, 0.5])
def test_a_network_that_is_good_everywhere_has_no_line(error):
    """The ideal denoiser, and one whose error off the line is small beside what a trained one's is."""
    found = find_line(network(named("offset:0.3"), error))
    assert not found.clear and found.gain < 0.8


def test_noise_widens_the_interval_and_never_gives_a_confident_wrong_line():
    for seed, size in itertools.product(range(3), (0.1, 1.0, 3.0)):
        map = network(named("power:2"))
        noise = torch.randn(map.loss.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        found = find_line(Map(map.layout, "s", GRID, 1, map.loss + size * noise, map.speed))
        assert not found.clear or found.distance(named("power:2")) < 0.06, (seed, size, found.width)


def test_the_circulation_is_what_two_ways_around_a_cell_differ_by():
    """Against a plain double loop over the cell's four edges, by the trapezoid rule."""
    map = network(named("offset:0.3"), images=2)
    cells, errors = circulation(map), map.loss[0].double()
    sizes, times, step = map.layout.sizes, GRID.times, float(GRID.values[1] - GRID.values[0])
    for i, j in ((0, 0), (3, 7), (15, 15), (9, 2)):

        def edge(group, one, other):
            at = [t[group] for t in (one, other)]
            ends = zip(at, (one, other), strict=True)
            values = [sizes[group] * times[k] ** 2 * errors[:, *p, group] for k, p in ends]
            return 0.5 * step * (values[0] + values[1]) / 2

        a, b, c, d = (i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)
        wanted = edge(0, a, b) + edge(1, b, c) - edge(1, a, d) - edge(0, d, c)
        torch.testing.assert_close(cells[:, i, j], wanted)


def test_the_least_line_is_the_best_of_all_staircases():
    """Against all non-decreasing heights of a 4 x 4 grid, for random cells."""
    cells = torch.randn(5, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    below = torch.cat([cells.new_zeros(5, 4, 1), cells.cumsum(2)], 2)
    for one, heights in zip(below, _least(cells), strict=True):
        best = max(
            sum(float(one[i, h]) for i, h in enumerate(every))
            for every in itertools.combinations_with_replacement(range(5), 4)
        )
        assert float(one.gather(1, heights[:, None]).sum()) == pytest.approx(best)
        assert bool((heights.diff() >= 0).all())


def test_pairs_alone_count_and_not_the_global_time():
    """An offset and the same pairs at another pace are at the same place."""
    slow = Schedule({"s": PowerOfTime(1.5), "f": PowerOfTime(3.0)})
    assert np.abs(ahead_of(slow, NAMES) - ahead_of(named("power:2"), NAMES)).max() < 1e-4  # of 4 001 points


def test_three_groups_are_refused():
    layout = Layout([{"name": name, "channels": 1} for name in ("s", "f", "g")])
    with pytest.raises(ValueError, match="between two groups"):
        find_line(Map(layout, "s", GRID, 1, torch.zeros(2, 2, 17, 17, 3), torch.zeros(2, 2, 17, 17, 3)))
