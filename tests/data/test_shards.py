"""Latent shards: SFD's files read with the expected numbers, flips, batches, workers, and errors in one line."""

import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from lwd.data.shards import LatentShards, shard_key
from lwd.data.writing import write_shard
from lwd.errors import UserError
from lwd.groups import Group, Layout

SFD = Layout([Group("tex", 32), Group("sem", 16)])
SMALL = Layout([Group("tex", 2), Group("sem", 1)])


def random_shard(count, seed, channels=(2, 1), grid=3, features=4):
    """The tensors of one shard in SFD's format: small integers, exact in float16, each image and twin different."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randint(-8, 9, (count, *shape), generator=generator).float()

    tensors = {}
    for key, width in zip(("latents", "latents_sv"), channels, strict=True):
        tensors |= {key: draw(width, grid, grid), f"{key}_flip": draw(width, grid, grid)}
    for key in ("feats_dino", "feats_dino_flip") if features else ():
        tensors[key] = draw(features, grid, grid).half()
    return tensors | {"labels": torch.randint(0, 1000, (count,), generator=generator)}


def write_stats(folder, channels=(2, 1)):
    """SFD's statistics files, with values that make (x - mean) / std exact in float32."""
    stats = {}
    for key, width in zip(("latents", "latents_sv"), channels, strict=True):
        mean = torch.arange(1.0, width + 1).view(1, -1, 1, 1)
        std = 2.0 ** (torch.arange(width) % 5 - 2).view(1, -1, 1, 1)
        torch.save({"mean": mean, "std": std}, folder / f"{key}_stats.pt")
        stats[key] = mean, std
    return stats


@pytest.fixture
def folder(tmp_path):
    """Three shards of 3, 5 and 2 images, and their tensors put end to end."""
    shards = [random_shard(count, seed) for seed, count in enumerate((3, 5, 2))]
    for name, shard in zip(("rank00_shard000", "rank00_shard001", "rank01_shard000"), shards, strict=True):
        save_file(shard, tmp_path / f"latents_{name}.safetensors")
    stats = write_stats(tmp_path)
    whole = {key: torch.cat([shard[key] for shard in shards]) for key in shards[0]}
    return tmp_path, whole, stats


def standardised(whole, stats, suffix=""):
    """(N, C, H, W) as the data set must give it."""
    return torch.cat([(whole[key + suffix] - mean) / std for key, (mean, std) in stats.items()], dim=1)


def test_sfds_own_format_at_its_own_sizes(tmp_path):
    tensors = random_shard(3, 0, channels=(32, 16), grid=16, features=768)
    save_file(tensors, tmp_path / "latents_rank00_shard000.safetensors")
    stats = write_stats(tmp_path, channels=(32, 16))
    shards = LatentShards(tmp_path, SFD, flip=False)
    assert (len(shards), shards.shape, shards.feature_dim) == (3, (16, 16), 768)
    assert torch.equal(shards.labels(), tensors["labels"])
    expected = standardised(tensors, stats)
    for i in range(3):
        x1, label, features = shards[i]
        assert x1.dtype == torch.float32 and torch.equal(x1, expected[i])
        assert label.dtype == torch.int64 and label == tensors["labels"][i]
        assert features.dtype == torch.float16 and torch.equal(features, tensors["feats_dino"][i])


def test_read_takes_images_and_twins_from_any_shard_in_any_order(folder):
    path, whole, stats = folder
    shards = LatentShards(path, SMALL)
    indices = torch.tensor([9, 0, 7, 3, 2, 8, 2])
    flips = torch.tensor([True, False, True, False, True, False, False])
    batch = shards.read(indices, flips)
    x1 = torch.where(flips[:, None, None, None], standardised(whole, stats, "_flip")[indices], 0)
    x1 += torch.where(flips[:, None, None, None], 0, standardised(whole, stats)[indices])
    assert torch.equal(batch.x1, x1) and torch.equal(batch.labels, whole["labels"][indices])
    features = [whole["feats_dino_flip" if flip else "feats_dino"][i] for i, flip in zip(indices, flips, strict=True)]
    assert torch.equal(batch.features, torch.stack(features))
    assert torch.equal(shards.read(indices).x1, standardised(whole, stats)[indices])


def test_items_are_rows_of_read(folder):
    path, whole, _ = folder
    shards = LatentShards(path, SMALL, seed=4)
    plain = shards.read(torch.arange(10), torch.zeros(10, dtype=torch.bool))
    twins = shards.read(torch.arange(10), torch.ones(10, dtype=torch.bool))
    items = [shards[i] for i in range(10)]
    flipped = [torch.equal(x1, twins.x1[i]) for i, (x1, _, _) in enumerate(items)]
    assert 0 < sum(flipped) < 10
    for i, (x1, label, features) in enumerate(items):
        source = twins if flipped[i] else plain
        assert torch.equal(x1, source.x1[i]) and torch.equal(features, source.features[i])
        assert label == whole["labels"][i]
    for item, again in zip(shards.__getitems__([3, 9, 0]), (items[3], items[9], items[0]), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(item, again, strict=True))


def test_groups_find_their_tensors_by_name_or_key(tmp_path):
    layout = Layout([Group("depth", 1), Group("sem", 2, key="clip")])
    assert [shard_key(g) for g in (*layout.groups, *SMALL.groups)] == ["latents_depth", "clip", "latents", "latents_sv"]
    depth, clip = torch.full((2, 1, 2, 2), 3.0), torch.full((2, 2, 2, 2), 5.0)
    save_file({"latents_depth": depth, "clip": clip, "labels": torch.tensor([1, 0])}, tmp_path / "a.safetensors")
    for key, width in (("latents_depth", 1), ("clip", 2)):
        stats = {"mean": torch.ones(1, width, 1, 1), "std": torch.ones(1, width, 1, 1)}
        torch.save(stats, tmp_path / f"{key}_stats.pt")
    x1, label = LatentShards(tmp_path, layout, flip=False)[0]
    assert x1[:, 0, 0].tolist() == [2, 4, 4] and label == 1


def test_destandardise_undoes_standardisation(folder):
    path, whole, _ = folder
    shards = LatentShards(path, SMALL, flip=False)
    x1 = shards.read(torch.arange(10)).x1
    assert torch.equal(shards.destandardise(x1), torch.cat([whole["latents"], whole["latents_sv"]], dim=1))


def test_features_are_optional(folder, tmp_path):
    path, _, _ = folder
    shards = LatentShards(path, SMALL, features=False)
    assert len(shards[0]) == 2 and shards.feature_dim is None and shards.read(torch.arange(3)).features is None
    bare = tmp_path / "bare"
    bare.mkdir()
    save_file(random_shard(2, 0, features=0), bare / "a.safetensors")
    write_stats(bare)
    assert len(LatentShards(bare, SMALL)[0]) == 2


# Flips


@pytest.fixture(scope="module")
def signs(tmp_path_factory):
    """4000 images of ones whose twins are minus one throughout, features too."""
    path, n = tmp_path_factory.mktemp("signs"), 4000
    one = {
        "latents": torch.ones(n, 1, 1, 1),
        "latents_sv": torch.ones(n, 1, 1, 1),
        "feats_dino": torch.ones(n, 1, 1, 1),
    }
    one["feats_dino"] = one["feats_dino"].half()
    save_file(one | {f"{k}_flip": -t for k, t in one.items()} | {"labels": torch.arange(n)}, path / "a.safetensors")
    for key in ("latents", "latents_sv"):
        torch.save({"mean": torch.zeros(1, 1, 1, 1), "std": torch.ones(1, 1, 1, 1)}, path / f"{key}_stats.pt")
    return path, Layout([Group("tex", 1), Group("sem", 1)])


def drawn(shards, indices=None):
    """(N, 3): which twin each of an image's tensors is of, +1 or -1."""
    items = shards.__getitems__(range(len(shards)) if indices is None else indices)
    return torch.stack([torch.cat([x1.flatten(), features.float().flatten()]) for x1, _, features in items])


def test_twins_come_half_the_time_with_all_keys_together(signs):
    values = drawn(LatentShards(*signs))
    assert (values == values[:, :1]).all(), "the tensors of one image are of different twins"
    # The mean of 4000 fair signs has a standard error of 1 / sqrt(4000) = 0.0158; five of them.
    assert abs(float(values[:, 0].mean())) < 0.08
    neighbours = float((values[1:, 0] * values[:-1, 0]).mean())
    assert abs(neighbours) < 0.08, "flips of neighbouring images are correlated"


def test_flips_are_a_pure_function_of_seed_epoch_and_index(signs):
    shards = LatentShards(*signs, seed=1)
    first = drawn(shards)[:, 0]
    order = torch.randperm(len(shards), generator=torch.Generator().manual_seed(0))[:500].tolist()
    assert torch.equal(drawn(shards, order)[:, 0], first[order])
    assert [float(shards[i][0][0, 0, 0]) for i in range(50)] == first[:50].tolist()
    assert torch.equal(drawn(LatentShards(*signs, seed=1))[:, 0], first)
    shards.set_epoch(1)
    second = drawn(shards)[:, 0]
    other = drawn(LatentShards(*signs, seed=2))[:, 0]
    for different in (second, other):  # independent draws agree half the time; standard error as above
        assert abs(float((first * different).mean())) < 0.08
    shards.set_epoch(0)
    assert torch.equal(drawn(shards)[:, 0], first)


def test_without_flip_no_twin_is_drawn_nor_needed(signs, tmp_path):
    path, layout = signs
    assert (drawn(LatentShards(path, layout, flip=False)) == 1).all()
    tensors = {k: t for k, t in load_file(path / "a.safetensors").items() if not k.endswith("_flip")}
    save_file(tensors, tmp_path / "a.safetensors")
    for name in ("latents_stats.pt", "latents_sv_stats.pt"):
        (tmp_path / name).write_bytes((path / name).read_bytes())
    assert len(LatentShards(tmp_path, layout, flip=False)) == 4000
    with pytest.raises(UserError, match="missing key 'latents_flip'"):
        LatentShards(tmp_path, layout)


# DataLoader and pickling


def test_dataloader_as_it_is(folder):
    path, whole, _ = folder
    shards = LatentShards(path, SMALL)
    batches = list(DataLoader(shards, batch_size=8))
    assert [x1.shape for x1, _, _ in batches] == [(8, 3, 3, 3), (2, 3, 3, 3)]
    x1, labels, features = (torch.cat(parts) for parts in zip(*batches, strict=True))
    items = [shards[i] for i in range(10)]
    assert torch.equal(x1, torch.stack([item[0] for item in items])) and torch.equal(labels, whole["labels"])
    assert torch.equal(features, torch.stack([item[2] for item in items])) and features.dtype == torch.float16


def test_workers_give_the_same_batches(folder):
    path, _, _ = folder
    shards = LatentShards(path, SMALL)
    for one, two in zip(DataLoader(shards, 4), DataLoader(shards, 4, num_workers=2), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_pickling_sends_the_recipe_and_not_the_data(tmp_path):
    save_file(random_shard(100, 0, grid=8), tmp_path / "a.safetensors")
    write_stats(tmp_path)
    shards = LatentShards(tmp_path, SMALL, seed=5)
    shards.set_epoch(3)
    sent = pickle.dumps(shards)
    assert len(sent) < 10_000 < (tmp_path / "a.safetensors").stat().st_size / 10
    again = pickle.loads(sent)
    for one, two in zip(shards.__getitems__(range(100)), again.__getitems__(range(100)), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_indices_out_of_range(folder):
    path, _, _ = folder
    shards = LatentShards(path, SMALL)
    for index in (10, -1):
        with pytest.raises(IndexError, match="10 images"):
            shards[index]
    assert len(list(shards)) == 10, "iteration must end"


# Errors


def set_tensor(key, change):
    def apply(tensors):
        tensors[key] = change(tensors[key]).contiguous()

    return apply


def both(key, change):
    def apply(tensors):
        for name in (key, f"{key}_flip"):
            tensors[name] = change(tensors[name]).contiguous()

    return apply


BAD_SHARDS = {
    "missing group": (lambda t: t.pop("latents_sv"), "missing key 'latents_sv'"),
    "missing twin": (lambda t: t.pop("latents_sv_flip"), "missing key 'latents_sv_flip'"),
    "missing labels": (lambda t: t.pop("labels"), "missing key 'labels'"),
    "missing twin of the features": (lambda t: t.pop("feats_dino_flip"), "missing key 'feats_dino_flip'"),
    "wrong channels": (both("latents", lambda x: x[:, :1]), "'tex' needs (N, 2, ...)"),
    "no channels": (both("latents", lambda x: x[:, 0, 0, 0]), "'tex' needs (N, 2, ...)"),
    "another number of axes": (both("latents", lambda x: x.flatten(2)), "different grids, (9,) and (3, 3)"),
    "fewer labels": (set_tensor("labels", lambda x: x[:-1]), "unequal length"),
    "fewer twins": (set_tensor("latents_flip", lambda x: x[:-1]), "unequal length"),
    "fewer features": (set_tensor("feats_dino", lambda x: x[:-1]), "unequal length"),
    "groups on different grids": (both("latents_sv", lambda x: x[..., :2, :2]), "different grids"),
    "twin on another grid": (set_tensor("latents_flip", lambda x: x[..., :2, :2]), "latents_flip"),
    "twin of other channels": (set_tensor("latents_flip", lambda x: x[:, :1]), "latents_flip"),
    "features of another width": (both("feats_dino", lambda x: x[:, :2]), "feats_dino"),
}


def one_line(error, *parts):
    text = str(error.value)
    assert "\n" not in text and all(str(part) in text for part in parts), text


@pytest.mark.parametrize(("damage", "message"), BAD_SHARDS.values(), ids=list(BAD_SHARDS))
def test_bad_shards_give_one_line_that_names_the_file(folder, damage, message):
    path, _, _ = folder
    file = path / "latents_rank00_shard001.safetensors"
    tensors = load_file(file)
    damage(tensors)
    save_file(tensors, file)
    with pytest.raises(UserError) as caught:
        shards = LatentShards(path, SMALL)
        shards.read(torch.arange(10), torch.arange(10) % 2 == 1)  # the latest moment to notice
    one_line(caught, path, message)


def test_shards_on_different_grids(folder):
    path, _, _ = folder
    save_file(random_shard(4, 0, grid=2, features=0), path / "z.safetensors")
    with pytest.raises(UserError) as caught:
        LatentShards(path, SMALL)
    one_line(caught, path, "(2, 2)", "(3, 3)")


@pytest.mark.parametrize("size", [0, 5, 300, -1])
def test_truncated_files(folder, size):
    path, _, _ = folder
    file = path / "latents_rank00_shard001.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(UserError) as caught:
        LatentShards(path, SMALL)
    one_line(caught, file, "not a readable safetensors file")


def test_no_shards_at_all(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError) as caught:
            LatentShards(path, SMALL)
        one_line(caught, path, "lwd encode")


def test_missing_statistics(folder):
    path, _, _ = folder
    (path / "latents_sv_stats.pt").unlink()
    with pytest.raises(UserError) as caught:
        LatentShards(path, SMALL)
    one_line(caught, path / "latents_sv_stats.pt", "lwd encode")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("twin", [False, True])
def test_values_that_are_not_finite_name_file_row_and_channel(folder, value, twin):
    path, _, _ = folder
    file = path / "latents_rank00_shard001.safetensors"
    tensors = load_file(file)
    tensors["latents_sv_flip" if twin else "latents_sv"][4, 0, 1, 1] = value  # image 7 of the data set
    save_file(tensors, file)
    shards = LatentShards(path, SMALL)
    flips = torch.full((10,), twin)
    with pytest.raises(UserError) as caught:
        shards.read(torch.arange(10), flips)
    one_line(caught, file, "image 4", "channel 0 of 'latents_sv'", "not finite")
    shards.read(torch.arange(7), flips[:7])
    shards.read(torch.arange(10), ~flips)


def test_large_values_are_finite(folder):
    """float32 goes up to 3.4e38: two such values are finite, whatever their sum."""
    path, _, _ = folder
    file = path / "latents_rank00_shard001.safetensors"
    tensors = load_file(file)
    tensors["latents"][0, 1] = 3e38 / 4  # channel 1 has std 1/2
    save_file(tensors, file)
    assert LatentShards(path, SMALL, flip=False).read(torch.tensor([3])).x1[0, 1, 0, 0] == 3e38 / 2


# write_shard


def some_latents(count=3):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(count, c, 3, 3, generator=generator) for name, c in (("sem", 1), ("tex", 2))}


def test_write_shard_writes_sfds_format(tmp_path):
    latents, flipped = some_latents(), {name: x.flip(-1) for name, x in some_latents().items()}
    features = torch.randn(3, 4, 3, 3)
    labels = torch.tensor([5, 0, 999], dtype=torch.int32)
    write_shard(tmp_path / "a.safetensors", SMALL, latents, labels, flipped, features, features.flip(-1))
    stored = load_file(tmp_path / "a.safetensors")
    expected = {
        "latents": latents["tex"],
        "latents_flip": flipped["tex"],
        "latents_sv": latents["sem"],
        "latents_sv_flip": flipped["sem"],
        "feats_dino": features.half(),
        "feats_dino_flip": features.flip(-1).half(),
        "labels": labels.long(),
    }
    assert set(stored) == set(expected)
    for key, tensor in expected.items():
        assert stored[key].dtype == tensor.dtype and torch.equal(stored[key], tensor)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    write_stats(tmp_path)
    assert torch.equal(LatentShards(tmp_path, SMALL, flip=False).labels(), labels.long())


def test_write_shard_without_twins_and_features(tmp_path):
    write_shard(str(tmp_path / "a.safetensors"), SMALL, some_latents(), torch.arange(3))
    assert set(load_file(tmp_path / "a.safetensors")) == {"latents", "latents_sv", "labels"}


def spoil(key, row):
    latents = some_latents()
    latents[key][row, 0, 1, 2] = float("nan")
    return latents


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latents": spoil("sem", 2)}, "'latents_sv' of image 2 is not finite"),
        ({"flipped": spoil("tex", 1)}, "'latents_flip' of image 1 is not finite"),
        ({"features": torch.full((3, 1, 1, 1), 1e6)}, "'feats_dino' of image 0 is not finite"),  # float16 overflows
        ({"labels": torch.arange(2)}, "2 labels for 3 rows of 'latents'"),
        ({"flipped": some_latents(4)}, "3 labels for 4 rows of 'latents_flip'"),
    ],
)
def test_write_shard_refuses_and_leaves_what_was_there(tmp_path, arguments, message):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"before")
    good = {"latents": some_latents(), "labels": torch.arange(3)}
    with pytest.raises(UserError) as caught:
        write_shard(path, SMALL, **(good | arguments))
    one_line(caught, path, message)
    assert path.read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 1


def test_write_shard_is_atomic(tmp_path, monkeypatch):
    def full_disk(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    path = tmp_path / "a.safetensors"
    path.write_bytes(b"before")
    monkeypatch.setattr("lwd.runtime.checkpoint.save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_shard(path, SMALL, some_latents(), torch.arange(3))
    assert path.read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 1
