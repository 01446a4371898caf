"""Layouts: which entries belong to whom."""

import json
import math

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lwd.config import Config, parse
from lwd.errors import UserError
from lwd.flow import schedule_objective
from lwd.groups import Group, Layout
from lwd.run import RunConfig

LAYOUT = Layout([Group("tex", 3, 1.0), Group("sem", 2, 2.0), Group("depth", 1, 0.5, key="d")])
FLAT = Layout(
    [
        Group("image", 2, 1.0, shape=(2, 3)),
        Group("token", 5, 2.0, shape=()),
        Group("text", 3, 0.5, shape=(4,)),
        Group("clip", 1, shape=(2, 1, 2)),
    ]
)
SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=4)


SHAPED = st.lists(st.tuples(st.integers(1, 4), st.lists(st.integers(1, 3), max_size=3)), min_size=1, max_size=4)
GRIDS = st.lists(st.integers(1, 3), max_size=4).map(tuple)


def layout_of(sizes):
    return Layout(Group(f"g{i}", size, weight=1.0 + i) for i, size in enumerate(sizes))


def flat_layout_of(shaped):
    return Layout(Group(f"g{i}", size, shape=shape) for i, (size, shape) in enumerate(shaped))


def test_properties_follow_the_order_of_the_groups():
    assert LAYOUT.names == ("tex", "sem", "depth")
    assert LAYOUT.sizes == [3, 2, 1]
    assert LAYOUT.channels == 6
    assert LAYOUT.weights == [1.0, 2.0, 0.5]
    assert repr(LAYOUT) == "[tex:3, sem:2, depth:1]"
    assert not LAYOUT.flat


def test_sizes_of_a_flat_layout_count_every_position():
    assert FLAT.flat
    assert FLAT.sizes == [2 * 2 * 3, 5, 3 * 4, 2 * 1 * 2]
    assert FLAT.channels == 12 + 5 + 12 + 4
    assert repr(FLAT) == "[image:2@(2x3), token:5@(), text:3@(4), clip:1@(2x1x2)]"


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
@given(SIZES, st.permutations(range(4)), GRIDS)
def test_join_undoes_split_whatever_the_order_of_the_parts(sizes, order, grid):
    layout = layout_of(sizes)
    z = torch.randn(2, layout.channels, *grid)
    parts = layout.split(z)
    shuffled = {f"g{i}": parts[f"g{i}"] for i in order if i < len(sizes)}
    assert torch.equal(layout.join(shuffled), z)


@settings(derandomize=True, database=None, max_examples=50, deadline=None)
@given(SHAPED, st.permutations(range(4)), st.integers(0, 3))
def test_a_flat_layouts_join_undoes_split_and_split_undoes_join(shaped, order, batch):
    layout = flat_layout_of(shaped)
    z = torch.randn(batch, layout.channels)
    parts = layout.split(z)
    assert [part.shape for part in parts.values()] == [(batch, size, *shape) for size, shape in shaped]
    shuffled = {f"g{i}": parts[f"g{i}"] for i in order if i < len(shaped)}
    assert torch.equal(layout.join(shuffled), z)
    own = {f"g{i}": torch.randn(batch, size, *shape) for i, (size, shape) in enumerate(shaped)}
    joined = layout.join(own)
    assert joined.shape == (batch, sum(size * math.prod(shape) for size, shape in shaped))
    for name, part in layout.split(joined).items():
        assert torch.equal(part, own[name])


def test_a_flat_layout_splits_into_views_too():
    z = torch.zeros(2, FLAT.channels)
    FLAT.split(z)["text"].fill_(1)
    assert z.sum() == 2 * 12 and (z[:, 17:29] == 1).all()


@settings(derandomize=True, database=None, max_examples=50, deadline=None)
@given(SIZES, st.integers(1, 3), GRIDS)
def test_expand_gives_each_channel_its_groups_value(sizes, batch, grid):
    layout = layout_of(sizes)
    values, like = torch.randn(batch, len(sizes)), torch.zeros(batch, layout.channels, *grid)
    expanded = layout.expand(values, like)
    assert expanded.shape == (batch, layout.channels, *[1] * len(grid))
    parts = layout.split(like + expanded)
    for g, name in enumerate(layout.names):
        assert torch.equal(parts[name], values[:, g].view(-1, 1, *[1] * len(grid)).expand_as(parts[name]))


@settings(derandomize=True, database=None, max_examples=50, deadline=None)
@given(SHAPED, st.integers(1, 3))
def test_expand_and_group_means_in_a_flat_layout(shaped, batch):
    layout = flat_layout_of(shaped)
    values, like = torch.randn(batch, len(shaped)), torch.randn(batch, layout.channels)
    expanded = layout.expand(values, like)
    assert expanded.shape == like.shape
    for g, part in enumerate(layout.split(expanded).values()):
        assert torch.equal(part, values[:, g].view(-1, *[1] * (part.ndim - 1)).expand_as(part))
    for g, part in enumerate(layout.split(like).values()):
        expected = part.double().flatten(1).mean(1)
        torch.testing.assert_close(layout.group_means(like)[:, g].double(), expected, rtol=0, atol=1e-6)  # float32 sums


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_expand_gives_the_dtype_it_is_asked_for(dtype):
    assert LAYOUT.expand(torch.rand(2, 3), torch.zeros(2, 6, 1, dtype=dtype)).dtype == dtype


def test_expand_is_differentiable():
    values = torch.ones(1, 3, requires_grad=True)
    LAYOUT.expand(values, torch.zeros(1, 6, 2, 2)).sum().backward()
    assert values.grad.tolist() == [[3, 2, 1]]


@pytest.mark.parametrize("grid", [(), (4,), (2, 3), (2, 3, 2)], ids=["vector", "sequence", "image", "video"])
def test_group_means_average_each_groups_own_entries_sample_by_sample(grid):
    z = torch.randn(2, 6, *grid)
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


@pytest.mark.parametrize("shape", [(2, 32), (2, 34), (2, 33, 1)])
def test_a_flat_layout_refuses_other_latents(shape):
    for call in (FLAT.split, FLAT.group_means):
        with pytest.raises(ValueError, match=r"is flat, \(B, 33\), got"):
            call(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, 2, 3, 2), (2, 12), (2, 3, 2, 3), (2, 2, 2, 3, 1)])
def test_a_flat_layouts_join_refuses_another_groups_shape(shape):
    parts = FLAT.split(torch.zeros(2, FLAT.channels))
    with pytest.raises(ValueError, match=r"group image:2@\(2x3\) got a tensor of shape"):
        FLAT.join({**parts, "image": torch.zeros(shape)})


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
        LAYOUT.expand(torch.zeros(2, groups), torch.zeros(2, 6))


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
        (("a", 1, 1.0, None, (4, 0)), "whole numbers of at least 1"),
        (("a", 1, 1.0, None, (-1,)), "whole numbers of at least 1"),
        (("a", 1, 1.0, None, (2.5,)), "whole numbers of at least 1"),
        (("a", 1, 1.0, None, "16"), "whole numbers of at least 1"),
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


def test_groups_with_and_without_a_shape_are_refused():
    with pytest.raises(ValueError, match=r"groups \['b', 'c'\] have no shape and the others do"):
        Layout([Group("a", 1, shape=()), Group("b", 2), Group("c", 2)])


def test_plain_data_round_trip_through_json():
    again = Layout(json.loads(json.dumps(LAYOUT.to_list())))
    assert again == LAYOUT
    assert hash(again) == hash(LAYOUT)
    assert again.groups[2].key == "d"
    assert "shape" not in json.dumps(LAYOUT.to_list())


def test_shapes_travel_through_json_and_yaml_as_lists():
    plain = FLAT.to_list()
    assert plain[0] == {"name": "image", "channels": 2, "weight": 1.0, "shape": [2, 3]}
    assert plain[1]["shape"] == []
    for again in (Layout(json.loads(json.dumps(plain))), Layout(yaml.safe_load(yaml.safe_dump(plain)))):
        assert again == FLAT and hash(again) == hash(FLAT)
        assert again.groups[0].shape == (2, 3)


class Settings(Config):
    groups: tuple[Group, ...]


def test_a_config_takes_a_shape_as_a_list():
    text = "groups: [{name: image, channels: 2, shape: [2, 3]}, {name: token, channels: 5, shape: []}]"
    groups = parse(Settings, yaml.safe_load(text), "a.yaml").groups
    assert groups == (Group("image", 2, shape=(2, 3)), Group("token", 5, shape=()))
    assert isinstance(groups[0].shape, tuple)


@pytest.mark.parametrize("shape", ["[0]", "[2, -1]", "[1.5]", "16", "large", "[[2]]"])
def test_a_config_refuses_a_senseless_shape_in_one_line(shape):
    text = f"groups: [{{name: image, channels: 2, shape: {shape}}}]"
    with pytest.raises(UserError, match=r"a\.yaml") as caught:
        parse(Settings, yaml.safe_load(text), "a.yaml")
    assert "shape" in str(caught.value)


@pytest.mark.parametrize(
    "other",
    [
        Layout(LAYOUT.groups[::-1]),
        Layout(LAYOUT.groups[:2]),
        Layout([Group("tex", 3, 1.5), *LAYOUT.groups[1:]]),
        Layout([Group("tex", 4), *LAYOUT.groups[1:]]),
        Layout([Group(g.name, g.channels, g.weight, g.key, ()) for g in LAYOUT.groups]),
    ],
)
def test_layouts_that_differ_are_unequal(other):
    assert other != LAYOUT


@pytest.mark.parametrize("grid", [(), (4,), (2, 3), (2, 1, 3)], ids=["vector", "sequence", "image", "video"])
def test_groups_of_one_shape_have_the_losses_of_the_stack(grid):
    """Flattened, a stack is the flat latent, entry by entry; the means are then float32 sums in another order."""
    flat = Layout([Group(g.name, g.channels, g.weight, shape=grid) for g in LAYOUT.groups])
    v, u = torch.randn(4, 6, *grid), torch.randn(4, 6, *grid)
    rates = torch.rand(4, 3) + 0.1
    parts = LAYOUT.split(v)
    assert torch.equal(flat.join(parts), v.flatten(1))
    one, other = v.clone().requires_grad_(), v.flatten(1).requires_grad_()
    for reduction in ("mean_flat", "group_mean"):
        stacked = schedule_objective(one, u, rates, LAYOUT, 0.3, reduction=reduction)
        flattened = schedule_objective(other, u.flatten(1), rates, flat, 0.3, reduction=reduction)
        torch.testing.assert_close(flattened.total, stacked.total, rtol=1e-6, atol=0)
        torch.testing.assert_close(flattened.flow, stacked.flow, rtol=1e-6, atol=0)
        torch.testing.assert_close(flattened.kinetic, stacked.kinetic, rtol=1e-6, atol=0)
        gradient, expected = torch.autograd.grad(flattened.total, other)[0], torch.autograd.grad(stacked.total, one)[0]
        torch.testing.assert_close(gradient, expected.flatten(1), rtol=1e-5, atol=1e-7)


def test_a_recipe_says_nothing_of_shapes_that_are_not_there():
    """So that it equals the recipe of a run from before there were any."""
    groups = RunConfig(groups=LAYOUT.groups, leader="sem").recipe()["groups"]
    assert groups[2] == {"name": "depth", "channels": 1, "weight": 0.5, "key": "d"}
    assert groups[0] == {"name": "tex", "channels": 3, "weight": 1.0, "key": None}
    groups = RunConfig(groups=FLAT.groups, leader="token").recipe()["groups"]
    assert [group["shape"] for group in groups] == [[2, 3], [], [4], [2, 1, 2]]
    assert Layout(json.loads(json.dumps(groups))) == FLAT
