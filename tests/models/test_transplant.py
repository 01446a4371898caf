"""A LightningDiT that begins as another one's function, to the last bit in float64; and what does not fit."""

import pytest
import torch

from lwd.errors import UserError
from lwd.groups import Group, Layout
from lwd.models import LightningDiT, load_model, record_of, save_model, save_sfd_checkpoint
from lwd.models.embedders import sincos_table
from lwd.models.start import Giver, grown_order, start_from, transplant

SIZES = {"depth": 2, "width": 48, "heads": 3}
TEX, SEM, DEPTH = Group("tex", 4), Group("sem", 2), Group("depth", 3)


def network(groups, grid=4, num_classes=5, seed=0, **options):
    """Float64, with random numbers wherever one begins at 0 or 1, as a trained one has."""
    torch.manual_seed(seed)
    model = LightningDiT(Layout(groups), grid, num_classes, **(SIZES | options)).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "pos_embed":
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def grown(giver, groups, classes=None, seed=1, **options):
    order = grown_order(record_of(giver), Layout(groups))
    model = network(groups, seed=seed, time_order=order, **options)
    account = start_from(model, Giver("there", record_of(giver), giver.state_dict(), "0"), classes)
    return model, account


def inputs(model, batch=3):
    z = torch.randn(batch, *model.shape, dtype=torch.float64)
    times = torch.rand(batch, len(model.layout.names), dtype=torch.float64)
    return z, times, torch.arange(batch) % (model.num_classes + 1)


def of(layout, names, z, times):
    """The latent and the times of some of the groups."""
    parts = layout.split(z)
    return torch.cat([parts[name] for name in names], dim=1), times[:, [layout.names.index(name) for name in names]]


@torch.no_grad()
def assert_begins_as(model, giver):
    """Bit for bit on the giver's groups, zero on all others, whatever the others' latents and times."""
    for seed in range(3):
        torch.manual_seed(seed)
        z, times, labels = inputs(model)
        labels[0] = model.null_label
        v = model(z, times, labels)
        names = giver.layout.names
        wanted = giver(*of(model.layout, names, z, times), labels)
        assert torch.equal(of(model.layout, names, v, times)[0], wanted)
        new = [name for name in model.layout.names if name not in names]
        assert not new or not of(model.layout, new, v, times)[0].any()


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([TEX], [TEX, SEM]),
        ([TEX], [SEM, TEX]),
        ([TEX, SEM], [TEX, SEM, DEPTH]),
        ([TEX, SEM], [TEX, DEPTH, SEM]),
        ([Group("tex", 1)], [Group("tex", 1), SEM]),
        ([TEX], [TEX, SEM, DEPTH]),
    ],
    ids=str,
)
def test_a_group_is_joined_and_the_function_stays_to_the_last_bit(old, new, patch):
    giver = network(old, patch_size=patch)
    assert_begins_as(grown(giver, new, patch_size=patch)[0], giver)


def test_a_grown_network_grows_again():
    first, _ = grown(network([TEX]), [TEX, SEM])
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    assert_begins_as(grown(first, [TEX, SEM, DEPTH], seed=2)[0], first)


@torch.no_grad()
def test_it_holds_in_float32_and_at_the_width_of_a_released_network():
    sizes = {"depth": 2, "width": 384, "heads": 6}
    giver = network([Group("tex", 32)], **sizes)
    model, _ = grown(giver, [Group("tex", 32), Group("sem", 16)], **sizes)
    assert_begins_as(model, giver)
    z, times, labels = (x.float() if x.is_floating_point() else x for x in inputs(model))
    assert torch.equal(model.float()(z, times, labels)[:, :32], giver.float()(z[:, :32], times[:, :1], labels))


def test_what_was_added_learns():
    """Zeros get a gradient: of the new channels in and out at once, of the rest as soon as these moved."""
    model, account = grown(network([TEX]), [TEX, SEM])
    assert set(account.grown) == {"x_embedder.weight", "final_layer.linear.weight", "final_layer.linear.bias"}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        z, times, labels = inputs(model)
        (model(z, times, labels) - 1).square().mean().backward()
        moved = [
            model.x_embedder.weight.grad[:, 4:],
            model.t_embedder.by_group["sem"].mlp[2].weight.grad,
            model.final_layer.linear.weight.grad[4:],
            *([model.t_embedder.by_group["sem"].mlp[0].weight.grad] if step else []),
        ]
        assert all(bool(gradient.any()) for gradient in moved)
        optimizer.step()
        optimizer.zero_grad()


def test_parts_are_the_plain_maps():
    """Computed apart or at once: the same numbers up to rounding of float64."""
    model, _ = grown(network([TEX], patch_size=2), [SEM, TEX, DEPTH], patch_size=2)
    torch.nn.init.normal_(model.x_embedder.weight)
    torch.nn.init.normal_(model.final_layer.linear.weight)
    z, x = torch.randn(2, *model.shape, dtype=torch.float64), torch.randn(2, 4, 48, dtype=torch.float64)
    conv, linear = model.x_embedder, model.final_layer.linear
    plain = torch.nn.functional.conv2d(z, conv.weight, conv.bias, stride=2)
    torch.testing.assert_close(conv(z), plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        linear(x), torch.nn.functional.linear(x, linear.weight, linear.bias), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [([TEX, SEM], [TEX]), ([TEX, SEM], [SEM]), ([TEX, SEM, DEPTH], [DEPTH, TEX]), ([TEX, SEM], [SEM, DEPTH])],
    ids=str,
)
@torch.no_grad()
def test_a_group_that_is_left_counts_as_zero_at_time_zero(old, new):
    """To float64's rounding, 1e-12: the embedder that stays is a wider one, whose products add up otherwise."""
    giver = network(old)
    model, account = grown(giver, new)
    z, times, labels = inputs(model)
    names = [name for name in giver.layout.names if name in model.layout.names]
    kept = dict(zip(names, times[:, [model.layout.names.index(name) for name in names]].T, strict=True))
    parts = model.layout.split(z)
    there = giver.layout.join({g.name: parts[g.name] if g.name in kept else 0 * z[:, :1].expand(-1, g.channels, -1, -1)
                               for g in giver.layout.groups})  # fmt: skip
    clock = torch.stack([kept.get(name, torch.zeros(3, dtype=torch.float64)) for name in giver.layout.names], dim=1)
    wanted, got = giver.layout.split(giver(there, clock, labels)), model.layout.split(model(z, times, labels))
    for name in names:
        torch.testing.assert_close(got[name], wanted[name], rtol=1e-12, atol=1e-12)
    gone = next(name for name in giver.layout.names if name not in names)
    assert f"t_embedder.by_group.{gone}.mlp.0.weight" in account.left and f"{gone} left" in str(account)


@torch.no_grad()
def test_classes_by_a_map():
    giver = network([TEX, SEM])
    model, account = grown(giver, [TEX, SEM], {0: 3, 7: 1}, num_classes=9)
    z, times, _ = inputs(model, 2)
    for here, there in ((0, 3), (7, 1), (model.null_label, giver.null_label)):
        both = torch.full((2,), here), torch.full((2,), there)
        assert torch.equal(model(z, times, both[0]), giver(z, times, both[1]))
    fresh = network([TEX, SEM], num_classes=9, seed=1)
    rest = [1, 2, 3, 4, 5, 6, 8]
    assert torch.equal(model.y_embedder.weight[rest], fresh.y_embedder.weight[rest])
    assert account.grown == ("y_embedder.weight",) and "2 classes kept by the map, 7 new, null kept" in str(account)
    assert grown(giver, [TEX, SEM])[0].y_embedder.weight.equal(giver.y_embedder.weight)


@torch.no_grad()
def test_another_grid_has_its_own_tables():
    """With no attention among tokens and no positions, a network that is grown in space does everywhere what it did."""
    giver = network([TEX, SEM])
    model, account = grown(giver, [TEX, SEM], grid=8)
    assert account.rebuilt == ("pos_embed",) and "grid 4x4 to 8x8" in str(account)
    assert torch.equal(model.pos_embed[0], sincos_table(48, 8).double()) and len(model.rotary_cos) == 64
    for network_ in (giver, model):
        network_.pos_embed.zero_()
        for block in network_.blocks:
            block.attn.proj.weight.zero_()
    z, times, labels = inputs(giver)
    tiled = model(z.repeat(1, 1, 2, 2), times, labels)
    torch.testing.assert_close(tiled, giver(z, times, labels).repeat(1, 1, 2, 2), rtol=1e-12, atol=1e-12)


def test_the_account_names_every_tensor_once():
    model, account = grown(network([TEX, SEM], feature_dim=5, projector_width=7), [SEM, DEPTH], {0: 0}, grid=8)
    kinds = (account.taken, account.grown, account.rebuilt, account.new)
    assert sorted(name for kind in kinds for name in kind) == sorted(model.state_dict())
    assert not set(account.left) & set(model.state_dict()) and "repa_projector.0.weight" in account.left
    assert set(account.new) == {n for n in model.state_dict() if n.startswith("t_embedder.by_group.depth.")}


def test_transplanting_changes_neither_network():
    giver = network([TEX, SEM])
    model = network([TEX, DEPTH], seed=1, time_order=grown_order(record_of(giver), Layout([TEX, DEPTH])))
    before = {name: tensor.clone() for name, tensor in (giver.state_dict() | model.state_dict()).items()}
    transplant(giver.state_dict(), record_of(giver), model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in (giver.state_dict() | model.state_dict()).items())


@pytest.mark.parametrize(
    ("groups", "options", "classes", "said"),
    [
        ([TEX], {"depth": 3}, None, r"depth is 2 there and 3 here; set model.depth"),
        ([TEX], {"width": 24}, None, r"width is 48 there and 24 here"),
        ([TEX], {"heads": 2, "width": 48}, None, r"heads is 3 there and 2 here"),
        ([TEX], {"patch_size": 2}, None, r"patch_size is 1 there and 2 here; name it in model.name"),
        ([TEX], {"mlp_ratio": 2.0}, None, r"mlp_ratio is 4.0 there and 2.0 here"),
        (
            [TEX],
            {"feature_dim": 6, "projector_width": 7},
            None,
            r"repa_projector.4.weight is \(5, 7\) there and \(6, 7\)",
        ),
        ([Group("tex", 5)], {}, None, r"group 'tex' has 4 channels there and 5 here; a group of other channels"),
        ([SEM], {}, None, r"has the groups \[tex:4\], of which none is here \(\[sem:2\]\)"),
        (
            [TEX],
            {"num_classes": 7},
            None,
            r"5 classes there and 7 here; .*train.init_classes=\{label here: label there\}",
        ),
        ([TEX], {}, {5: 0}, r"train.init_classes: 5: 0: no label 5 here, they run from 0 to 4"),
        ([TEX], {"num_classes": 7}, {6: 5}, r"train.init_classes: 6: 5: no label 5 there, they run from 0 to 4"),
    ],
    ids=str,
)
def test_each_misfit_is_one_line(groups, options, classes, said):
    giver = network([TEX], feature_dim=5, projector_width=7)
    with pytest.raises(UserError, match=said) as caught:
        grown(giver, groups, classes, **options)
    assert "\n" not in str(caught.value)


def test_a_network_of_another_time_order_is_the_caller_s_mistake():
    giver = network([TEX])
    with pytest.raises(ValueError, match=r"time_order=\('tex', '\+sem'\)"):
        transplant(giver.state_dict(), record_of(giver), network([TEX, SEM]))


def test_a_grown_network_is_saved_and_loaded(tmp_path):
    model = grown(network([TEX]), [TEX, SEM])[0].float()
    save_model(model, tmp_path)
    loaded = load_model(tmp_path).eval()
    assert loaded.t_embedder.added == ("sem",)
    z, times, labels = (x.float() if x.is_floating_point() else x for x in inputs(model))
    assert torch.equal(loaded(z, times, labels), model(z, times, labels))
    with pytest.raises(UserError, match="'sem' was added"):
        save_sfd_checkpoint(model, tmp_path / "no.pt")
