"""Shards of latents of any shape: one grid of 0 to 3 axes that all groups share, or a shape of each group's own."""

import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from lwd.data import LatentShards, channel_stats, write_shard, write_stats
from lwd.data.check import check
from lwd.data.check_picture import save_histograms, table
from lwd.data.format import infer_layout, open_shard
from lwd.data.stats import load_stats, save_stats
from lwd.errors import UserError
from lwd.groups import Group, Layout

GRIDS = [(), (5,), (3, 4), (2, 3, 4)]
STACKED = Layout([Group("a", 3), Group("b", 2)])
FLAT = Layout([Group("image", 3, shape=(4, 5)), Group("token", 6, shape=()), Group("words", 2, shape=(7,))])


def grids(layout, grid):
    """Each group's own trailing axes."""
    return {g.name: grid if g.shape is None else g.shape for g in layout.groups}


def draw(layout, grid, count, seed):
    """Group name -> (count, C_g, ...), of another mean and scale in every channel."""
    generator, latents = torch.Generator().manual_seed(seed), {}
    for group in layout.groups:
        own = grids(layout, grid)[group.name]
        scale = torch.arange(1.0, group.channels + 1).view(-1, *[1] * len(own))
        latents[group.name] = scale * (3 + torch.randn(count, group.channels, *own, generator=generator))
    return latents


def write(folder, layout, grid, sizes=(4, 6)):
    """Shards with twins; what is in them, end to end: (plain, twins)."""
    sides = []
    for number, count in enumerate(sizes):
        sides.append([draw(layout, grid, count, 2 * number + twin) for twin in range(2)])
        labels = torch.arange(count)
        write_shard(folder / f"{number}.safetensors", layout, sides[-1][0], labels, sides[-1][1])
    write_stats(folder, layout)
    return [{name: torch.cat([side[k][name] for side in sides]) for name in layout.names} for k in range(2)]


CASES = [*((STACKED, grid) for grid in GRIDS), (FLAT, ())]
IDS = ["vector", "sequence", "image", "video", "shapes of their own"]


@pytest.mark.parametrize(("layout", "grid"), CASES, ids=IDS)
def test_written_read_and_back_again(tmp_path, layout, grid):
    """Every group comes back in its own shape, standardised by torch's own numbers; float32 rounding (1e-5)."""
    plain, twins = write(tmp_path, layout, grid)
    shards = LatentShards(tmp_path, layout)
    assert shards.shape == (() if layout.flat else grid) and len(shards) == 10
    flips = torch.arange(10) % 3 == 1
    x1 = shards.read(torch.arange(10), flips).x1
    assert x1.shape == (10, layout.channels, *shards.shape)
    for name, part in layout.split(x1).items():
        where = flips.view(-1, *[1] * (part.ndim - 1))
        stored = torch.where(where, twins[name], plain[name])
        over = [axis for axis in range(part.ndim) if axis != 1]
        std, mean = torch.std_mean(plain[name].double(), over, correction=0, keepdim=True)
        torch.testing.assert_close(part, ((stored - mean) / std).float(), rtol=1e-5, atol=1e-5)
    back = layout.split(shards.destandardise(shards.read(torch.arange(10)).x1))
    for name, part in back.items():
        torch.testing.assert_close(part, plain[name], rtol=1e-5, atol=1e-5)
    again = pickle.loads(pickle.dumps(shards))
    assert again.shape == shards.shape and torch.equal(again.read(torch.arange(10), flips).x1, x1)
    item, label = LatentShards(tmp_path, layout, flip=False)[9]
    assert torch.equal(item, shards.read(torch.tensor([9])).x1[0]) and label == 5


@pytest.mark.parametrize("grid", GRIDS, ids=IDS[:4])
def test_statistics_have_the_latents_axes(tmp_path, grid):
    x = draw(STACKED, grid, 50, 0)["a"]
    mean, std = channel_stats(x.split([20, 30]))
    assert mean.shape == std.shape == (1, 3, *[1] * len(grid))
    by_channel = x.double().movedim(1, 0).flatten(1)
    # float64 sums on both sides, rounded once: one ulp of float32
    torch.testing.assert_close(mean.flatten(), by_channel.mean(1).float(), rtol=2.4e-7, atol=0)
    torch.testing.assert_close(std.flatten(), by_channel.std(1, correction=0).float(), rtol=2.4e-7, atol=0)
    save_stats(tmp_path / "s.pt", mean, std)
    assert torch.equal(load_stats(tmp_path / "s.pt", 3, len(grid))[1], std)
    with pytest.raises(UserError, match=r"s\.pt: mean .* should be \(1, 3, "):
        load_stats(tmp_path / "s.pt", 3, len(grid) + 1)


def one_line(error, *parts):
    text = str(error.value)
    assert "\n" not in text and all(str(part) in text for part in parts), text


def test_groups_on_different_grids_need_shapes(tmp_path):
    """Neither written nor read: one line with the file, the keys and both grids."""
    latents = {"a": torch.zeros(2, 3, 4, 4), "b": torch.zeros(2, 2, 7)}
    file = tmp_path / "0.safetensors"
    with pytest.raises(UserError) as caught:
        write_shard(file, STACKED, latents, torch.zeros(2))
    one_line(caught, file, "'b'", "'a'", "(7,) and (4, 4)", "shape")
    shaped = Layout([Group("a", 3, shape=(4, 4)), Group("b", 2, shape=(7,))])
    write_shard(file, shaped, latents, torch.zeros(2))
    with pytest.raises(UserError) as caught:
        LatentShards(tmp_path, STACKED, flip=False)
    one_line(caught, file, "'latents_b'", "'latents_a'", "(7,) and (4, 4)", "shape")


def test_latents_of_another_shape_than_the_group_s(tmp_path):
    write(tmp_path, FLAT, ())
    file = tmp_path / "0.safetensors"
    other = Layout([FLAT.groups[0], FLAT.groups[1], Group("words", 2, shape=(8,))])
    for use in (lambda: LatentShards(tmp_path, other), lambda: write_stats(tmp_path, other)):
        with pytest.raises(UserError) as caught:
            use()
        one_line(caught, file, "'latents_words' has shape (4, 2, 7), group 'words' needs (N, 2, 8)")
    with pytest.raises(UserError) as caught:
        write_shard(tmp_path / "new.safetensors", other, draw(FLAT, (), 3, 0), torch.zeros(3))
    one_line(caught, "new.safetensors: 'latents_words' has shape (3, 2, 7)")
    assert not (tmp_path / "new.safetensors").exists()


def test_a_value_that_is_not_finite_is_found_in_its_group(tmp_path):
    write(tmp_path, FLAT, ())
    stored = load_file(tmp_path / "1.safetensors")
    stored["latents_token"][2, 4] = torch.nan
    save_file(stored, tmp_path / "1.safetensors")
    with pytest.raises(UserError) as caught:
        LatentShards(tmp_path, FLAT).read(torch.arange(10))
    one_line(caught, tmp_path / "1.safetensors", "image 2, channel 4 of 'latents_token' is not finite")
    with pytest.raises(UserError) as caught:
        write_stats(tmp_path, FLAT)
    one_line(caught, tmp_path / "1.safetensors", "'latents_token' of image 2, channel 4 is not finite")


@pytest.mark.parametrize(("layout", "grid"), CASES, ids=IDS)
def test_data_check(tmp_path, layout, grid):
    """No problem in sound data, whether the groups are given or inferred; every value is in the histograms."""
    write(tmp_path / "train", layout, grid)
    for given in (layout, None):
        (report,) = check(tmp_path, given, show=False)
        assert report.problems == [] and report.images == 10
        for group in layout.groups:
            seen, own = report.channels[f"latents_{group.name}"], grids(layout, grid)[group.name]
            assert seen.shape == (group.channels, *own)
            assert int(seen.counts.sum()) == 10 * torch.Size(seen.shape).numel()
    assert all(f"latents_{name} " in table([report]) for name in layout.names)
    stats = tmp_path / "train" / f"latents_{layout.names[-1]}_stats.pt"
    mean, std = (
        x + 1 for x in load_stats(stats, layout.groups[-1].channels, len(grids(layout, grid)[layout.names[-1]]))
    )
    save_stats(stats, mean, std)
    (report,) = check(tmp_path, None, show=False)
    assert [problem.partition(" is ")[0] for problem in report.problems] == [f"{stats}: mean of channel 0"]


def test_inferred_groups_have_shapes_where_their_grids_differ(tmp_path):
    write(tmp_path, FLAT, ())
    shards = [open_shard(tmp_path / f"{number}.safetensors") for number in range(2)]
    inferred = infer_layout(shards)
    assert inferred is not None
    assert [(g.key, g.channels, g.shape) for g in inferred.groups] == [
        ("latents_image", 3, (4, 5)),
        ("latents_token", 6, ()),
        ("latents_words", 2, (7,)),
    ]
    shards[0] = {**shards[0], "latents_words": torch.zeros(4, 2, 9)}
    assert not infer_layout(shards).flat  # one key on two grids: that is a mistake, and listed as such


def test_histograms_of_every_shape(tmp_path):
    write(tmp_path / "train", FLAT, ())
    save_histograms(check(tmp_path, None, show=False), tmp_path / "h.png")
    assert (tmp_path / "h.png").stat().st_size > 10_000
