"""Layouts: which channels belong to whom."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lwd.groups import Group, Layout

LAYOUT = Layout([Group("tex", 3, 1.0), Group("sem", 2, 2.0), Group("depth", 1, 0.5, key="d")])
SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=4)


def layout_of(sizes):
    return Layout(Group(f"g{i}", size, weight=1.0 + i) for i, size in enumerate(sizes))


def test_properties_follow_the_order_of_the_groups():
    assert LAYOUT.names == ("tex", "sem", "depth")
    assert LAYOUT.sizes == [3, 2, 1]
    assert LAYOUT.channels == 6
    assert LAYOUT.weights == [1.0, 2.0, 0.5]
    assert repr(LAYOUT) == "[tex:3, sem:2, depth:1]"


def test_split_gives_each_group_its_own_channels():
    z = torch.arange(6.0).reshape(1, 6, 1, 1).expand(2, 6, 2, 3)
    parts = LAYOUT.split(z)
    assert list(parts) == ["tex", "sem", "depth"]
    assert [part[0, :, 0, 0].tolist() for part in parts.values()] == [[0, 1, 2], [3, 4], [5]]


def test_split_gives_views():
    z = torch.zeros(1, 6, 1, 1)
    LAYOUT.split(z)["sem"].fill_(1)
    assert z.flatten().tolist() == [0, 0, 0, 1, 1, 0]


@settings(derandomize=True, database=None, max_examples=50, deadline=None)
@given(SIZES, st.permutations(range(4)), st.sampled_from([(), (2,), (2, 3)]))
def test_join_undoes_split_whatever_the_order_of_the_parts(sizes, order, grid):
    layout = layout_of(sizes)
    z = torch.randn(2, layout.channels, *grid)
    parts = layout.split(z)
    shuffled = {f"g{i}": parts[f"g{i}"] for i in order if i < len(sizes)}
    assert torch.equal(layout.join(shuffled), z)


@settings(derandomize=True, database=None, max_examples=50, deadline=None)
@given(SIZES, st.integers(1, 3))
def test_expand_gives_each_channel_its_groups_value(sizes, batch):
    layout = layout_of(sizes)
    values = torch.randn(batch, len(sizes))
    expanded = layout.expand(values)
    assert expanded.shape == (batch, layout.channels, 1, 1)
    channel = 0
    for g, size in enumerate(sizes):
        for _ in range(size):
            assert torch.equal(expanded[:, channel, 0, 0], values[:, g])
            channel += 1


def test_expand_is_differentiable():
    values = torch.ones(1, 3, requires_grad=True)
    LAYOUT.expand(values).sum().backward()
    assert values.grad.tolist() == [[3, 2, 1]]


def test_group_means_average_each_groups_own_entries_sample_by_sample():
    z = torch.randn(2, 6, 2, 3)
    means = LAYOUT.group_means(z)
    for b in range(2):
        for g, (low, high) in enumerate([(0, 3), (3, 5), (5, 6)]):
            # float32 sums in another order
            assert means[b, g] == pytest.approx(z[b, low:high].double().mean().item(), abs=1e-6)


@pytest.mark.parametrize("channels", [5, 7])
def test_a_tensor_of_other_width_is_refused(channels):
    z = torch.zeros(1, channels, 1, 1)
    for call in (LAYOUT.split, LAYOUT.group_means):
        with pytest.raises(ValueError, match="has 6 channels"):
            call(z)


def test_join_refuses_other_names_and_other_widths():
    parts = LAYOUT.split(torch.zeros(1, 6, 1, 1))
    with pytest.raises(ValueError, match="layout has groups"):
        LAYOUT.join({"tex": parts["tex"], "sem": parts["sem"]})
    with pytest.raises(ValueError, match="layout has groups"):
        LAYOUT.join({**parts, "extra": parts["tex"]})
    with pytest.raises(ValueError, match="has 6 channels"):
        LAYOUT.join({**parts, "sem": parts["tex"]})


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_expand_refuses_another_number_of_groups(groups):
    with pytest.raises(ValueError, match="layout has 3 groups"):
        LAYOUT.expand(torch.zeros(2, groups))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a b", 1), "identifier"),
        (("", 1), "identifier"),
        (("a.b", 1), "identifier"),
        (("a", 0), "at least 1"),
        (("a", -3), "at least 1"),
        (("a", 1, 0.0), "positive"),
        (("a", 1, -1.0), "positive"),
        (("a", 1, float("nan")), "positive"),
    ],
)
def test_a_senseless_group_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Group(*arguments)


def test_an_empty_layout_and_a_repeated_name_are_refused():
    with pytest.raises(ValueError, match="at least one group"):
        Layout([])
    with pytest.raises(ValueError, match="must differ"):
        Layout([Group("a", 1), Group("a", 2)])


def test_plain_data_round_trip_through_json():
    again = Layout(json.loads(json.dumps(LAYOUT.to_list())))
    assert again == LAYOUT
    assert hash(again) == hash(LAYOUT)
    assert again.groups[2].key == "d"


@pytest.mark.parametrize(
    "other",
    [
        Layout(LAYOUT.groups[::-1]),
        Layout(LAYOUT.groups[:2]),
        Layout([Group("tex", 3, 1.5), *LAYOUT.groups[1:]]),
        Layout([Group("tex", 4), *LAYOUT.groups[1:]]),
    ],
)
def test_layouts_that_differ_are_unequal(other):
    assert other != LAYOUT
