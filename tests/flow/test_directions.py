"""The auxiliary terms, LightningDiT's direction loss and REPA, against loops written from the definition."""

import math

import pytest
import torch

from lwd.flow import cosine_direction_loss, repa_loss
from lwd.groups import Group, Layout

TWO = Layout([Group("tex", 3, 1.0), Group("sem", 2, 2.0)])
FLAT = Layout([Group("image", 2, shape=(2, 3)), Group("token", 5, 0.5, shape=()), Group("text", 3, 4.0, shape=(4,))])


def pair(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator), torch.randn(*shape, generator=generator)


def one_minus_cosines(v, u):
    """1 - cos along axis 1 of (B, C, ...) at each position of each sample, from the definition."""
    values = []
    for a, c in zip(v[..., None].flatten(2).double(), u[..., None].flatten(2).double(), strict=True):
        for p, q in zip(a.T.tolist(), c.T.tolist(), strict=True):
            dot = sum(x * y for x, y in zip(p, q, strict=True))
            values.append(1 - dot / math.hypot(*p) / math.hypot(*q))
    return values


@pytest.mark.parametrize("grid", [(), (6,), (2, 3), (2, 1, 3)], ids=["vector", "sequence", "image", "video"])
def test_the_direction_loss_is_one_minus_cosine_along_the_composite_channels(grid):
    v, u = pair(4, 5, *grid)
    values = one_minus_cosines(v, u)
    assert len(values) == 4 * math.prod(grid)
    assert cosine_direction_loss(v, u, TWO).item() == pytest.approx(sum(values) / len(values), abs=1e-6)  # float32


def test_in_a_flat_layout_each_group_has_its_own_direction_and_counts_by_its_entries():
    v, u = pair(4, FLAT.channels)
    expected = 0.0
    for name, share in (("image", 12 / 29), ("token", 5 / 29), ("text", 12 / 29)):
        values = one_minus_cosines(FLAT.split(v)[name], FLAT.split(u)[name])
        expected += share * sum(values) / len(values)
    assert cosine_direction_loss(v, u, FLAT).item() == pytest.approx(expected, abs=1e-6)  # float32


def test_a_flat_layout_of_one_group_has_the_direction_loss_of_the_group():
    v, u = pair(4, 5, 2, 3)
    flat = Layout([Group("z", 5, shape=(2, 3))])
    assert cosine_direction_loss(v.flatten(1), u.flatten(1), flat) == cosine_direction_loss(v, u, TWO)


def test_on_one_grid_the_flat_direction_loss_is_the_composite_one_where_groups_are_as_large_per_channel():
    """cos of the whole = sum_g v_g . u_g / (|v| |u|), and |v_g|^2 = C_g gives the shares C_g / C; not so otherwise."""
    flat = Layout([Group(g.name, g.channels, shape=(2, 3)) for g in TWO.groups])
    v, u = pair(4, 5, 2, 3)
    even = [TWO.join({n: p / p.square().mean(1, keepdim=True).sqrt() for n, p in TWO.split(z).items()}) for z in (v, u)]
    composite = cosine_direction_loss(*even, TWO).item()
    assert cosine_direction_loss(*(z.flatten(1) for z in even), flat).item() == pytest.approx(composite, abs=1e-6)
    difference = cosine_direction_loss(v.flatten(1), u.flatten(1), flat) - cosine_direction_loss(v, u, TWO)
    assert abs(difference.item()) > 0.01


@pytest.mark.parametrize(("layout", "grid"), [(TWO, (2, 3)), (FLAT, ())], ids=["one grid", "flat"])
def test_the_direction_loss_ignores_length_and_spans_zero_to_two(layout, grid):
    v, _ = pair(4, layout.channels, *grid)
    assert cosine_direction_loss(3 * v, v, layout).item() == pytest.approx(0, abs=1e-6)
    assert cosine_direction_loss(-0.5 * v, v, layout).item() == pytest.approx(2, abs=1e-6)


def test_the_direction_loss_at_zero_does_not_swamp_adam():
    """A network whose last layer starts at zero predicts 0; a gradient of 1e8 there would freeze that layer."""
    v = torch.zeros(2, 5, 2, 3, requires_grad=True)
    _, u = pair(2, 5, 2, 3)
    loss = cosine_direction_loss(v, u, TWO)
    assert loss.item() == 1
    (gradient,) = torch.autograd.grad(loss, v)
    per_position = gradient.norm(dim=1) * 2 * 2 * 3
    assert (per_position < 100).all()  # 10 at a floor of 0.1 under |v|
    assert (per_position > 0).all()  # but it does say where to go


@pytest.mark.parametrize(("layout", "grid"), [(TWO, (2, 3)), (FLAT, ())], ids=["one grid", "flat"])
def test_the_floor_sets_the_gradient_at_zero_and_nothing_above_it(layout, grid):
    """At v = 0 the gradient of a position is u / (|u| floor): SFD's floor 1e-8 gives 1e7 times that of 0.1."""
    v, u = torch.zeros(2, layout.channels, *grid), pair(2, layout.channels, *grid)[1]

    def gradient(floor):
        at = v.clone().requires_grad_()
        (found,) = torch.autograd.grad(cosine_direction_loss(at, u, layout, *floor), at)
        return found.double()

    ours, released = gradient(()), gradient((1e-8,))
    assert float(released.norm() / ours.norm()) == pytest.approx(1e7, rel=1e-5)  # float32
    if layout is TWO:
        each = -u / u.norm(dim=1, keepdim=True) / 0.1 / (2 * 2 * 3)  # the mean of all positions of both samples
        torch.testing.assert_close(ours, each.double(), rtol=1e-5, atol=0)
    assert cosine_direction_loss(u + 1, u, layout, 1e-8) == cosine_direction_loss(u + 1, u, layout)  # norms above 0.1


@pytest.mark.parametrize("grid", [(), (6,), (2, 3), (1, 3, 2)], ids=["vector", "sequence", "image", "video"])
def test_repa_is_one_minus_cosine_token_by_token_in_row_major_order(grid):
    tokens, features = pair(2, 5, *grid)
    projected = tokens.reshape(2, 5, -1).transpose(1, 2)
    values = one_minus_cosines(tokens, features)
    assert repa_loss(projected, features).item() == pytest.approx(sum(values) / len(values), abs=1e-6)  # float32


def test_bfloat16_inputs_give_float32_losses():
    v, u = (z.bfloat16() for z in pair(4, 5, 32, 32))
    features, tokens = torch.randn(4, 5, 2, 3).bfloat16(), torch.randn(4, 6, 5).bfloat16()
    for value, expected in (
        (cosine_direction_loss(v, u, TWO), cosine_direction_loss(v.float(), u.float(), TWO)),
        (repa_loss(tokens, features), repa_loss(tokens.float(), features.float())),
    ):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(2, 6, 4), (2, 5, 5), (2, 7, 5), (1, 6, 5)])
def test_repa_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match="REPA features"):
        repa_loss(torch.zeros(shape), torch.zeros(2, 5, 2, 3))
