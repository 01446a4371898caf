"""The search for lambda on stubs: a threshold below which probes collapse, and no probes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from lwd.probe.bisection import Bisection, Listed, Search, weakest_stable

GRID = Bisection(0.01, 0.1, 1.25)


def play(search: Search, is_stable: Callable[[float], bool], count: int) -> tuple[dict[float, bool], int]:
    """Every lambda tried, and in how many rounds."""
    tried: dict[float, bool] = {}
    rounds = 0
    while weights := search.next(tried, count):
        assert not set(weights) & set(tried), "nothing is probed twice"
        assert len(set(weights)) == len(weights)
        tried |= {weight: is_stable(weight) for weight in weights}
        rounds += 1
        assert rounds < 50
    return tried, rounds


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("threshold", [0.0101, 0.0123, 0.0349, 0.0351, 0.07, 0.0999])
def test_a_threshold_inside_the_range_is_found_to_the_resolution(threshold: float, count: int) -> None:
    tried, rounds = play(GRID, lambda weight: weight >= threshold, count)
    found = weakest_stable(tried)
    assert found is not None and found >= threshold
    # Neighbours on the grid differ by 1.25 at most, and 3 digits are kept: 1e-2 covers both roundings.
    assert found / threshold < 1.25 * (1 + 1e-2)
    collapsed = max(weight for weight, is_stable in tried.items() if not is_stable)
    assert found / collapsed < 1.25 * (1 + 1e-2)
    # 11 cells: the ends, then rounds that leave 1 / (count + 1) of the bracket, rounded up.
    cells, most = 11, 1
    while cells > 1:
        cells, most = math.ceil(cells / (count + 1)), most + 1
    assert rounds <= most
    assert len(tried) <= 2 + most * count


@pytest.mark.parametrize("threshold", [0.0002, 0.004, 0.0349, 0.3, 6.0])
def test_the_answer_does_not_depend_on_how_many_run_side_by_side(threshold: float) -> None:
    answers = {weakest_stable(play(GRID, lambda w: w >= threshold, count)[0]) for count in (1, 2, 3, 5, 16)}
    assert len(answers) == 1 and None not in answers


@pytest.mark.parametrize(("threshold", "times"), [(0.004, 1), (0.0007, 2)])
def test_both_ends_stable_widens_downwards(threshold: float, times: int) -> None:
    tried, _ = play(GRID, lambda weight: weight >= threshold, 1)
    found = weakest_stable(tried)
    assert found is not None and 1 <= found / threshold < 1.25 * (1 + 1e-2)
    # The stride is the whole number of cells nearest to fourfold, here 7 of 10^(1/11).
    assert min(tried) == pytest.approx(0.01 / 10 ** (7 / 11 * times), rel=5e-3)
    assert max(tried) == 0.1


def test_both_ends_collapsed_widens_upwards_and_comes_back() -> None:
    tried, _ = play(GRID, lambda weight: weight >= 0.3, 1)
    found = weakest_stable(tried)
    assert found is not None and 1 <= found / 0.3 < 1.25 * (1 + 1e-2)
    assert min(tried) == 0.01


@pytest.mark.parametrize("count", [1, 2, 5])
def test_it_gives_up_after_so_many_expansions(count: int) -> None:
    tried, _ = play(Bisection(0.01, 0.1, 1.25, expansions=3), lambda weight: True, count)
    assert weakest_stable(tried) == min(tried) == pytest.approx(0.01 / 10 ** (21 / 11), rel=5e-3)
    tried, _ = play(Bisection(0.01, 0.1, 1.25, expansions=2), lambda weight: False, count)
    assert weakest_stable(tried) is None
    assert max(tried) == pytest.approx(0.1 * 10 ** (14 / 11), rel=5e-3)
    tried, _ = play(Bisection(0.01, 0.1, 1.25, expansions=0), lambda weight: True, 1)
    assert sorted(tried) == [0.01, 0.1]


def test_one_process_bisects_and_many_are_all_busy() -> None:
    stable = {0.01: False, 0.1: True}
    (one,) = GRID.next(stable, 1)
    assert one == pytest.approx(math.sqrt(0.01 * 0.1), rel=0.13), "the middle on a log scale, to half a cell"
    assert len(GRID.next(stable, 4)) == 4
    assert len(GRID.next(stable, 40)) == 10, "no more than there are between the ends"
    assert len(GRID.next({}, 6)) == 6
    assert GRID.next({}, 1) == [0.01, 0.1]


def test_a_collapse_found_late_moves_the_answer_up() -> None:
    """The full length of the chosen lambda's probe may contradict its early verdict."""
    tried, _ = play(GRID, lambda weight: weight >= 0.03, 1)
    first = weakest_stable(tried)
    tried[first] = False
    more, _ = play(_Since(GRID, tried), lambda weight: weight >= 0.05, 1)
    found = weakest_stable(tried | more)
    assert found is not None and 1 <= found / 0.05 < 1.25 * (1 + 1e-2)


class _Since:
    """A search that already knows something."""

    def __init__(self, search: Search, known: dict[float, bool]) -> None:
        self.search, self.known = search, known

    def next(self, stable: dict[float, bool], count: int) -> list[float]:
        return self.search.next(self.known | stable, count)


def test_the_weakest_stable_lambda_lies_above_every_collapsed_one() -> None:
    assert weakest_stable({0.1: True, 0.01: False, 0.03: True}) == 0.03
    assert weakest_stable({0.01: True, 0.03: False, 0.1: True}) == 0.1
    assert weakest_stable({0.01: True, 0.03: False}) is None
    # The far end, where the kinetic term has shrunk the denoiser, once the near one is known.
    assert weakest_stable({0.01: False, 0.03: True, 0.1: True, 1.0: False}) == 0.03
    assert weakest_stable({}) is None


def test_a_list_is_tried_at_once() -> None:
    search = Listed((0.0, 0.01, 0.1))
    assert search.next({}, 1) == [0.0, 0.01, 0.1]
    assert search.next({0.0: False, 0.1: True, 7.0: True}, 1) == [0.01]
    assert search.next(dict.fromkeys(search.weights, True), 8) == []
