"""Training batches: pure functions of (seed, step) that do not depend on how many processes share them."""

import pytest
import torch
from torch.utils.data import DataLoader

from lwd.data.batches import StepBatches, StepDraws, draw
from lwd.data.shards import LatentShards
from lwd.data.stats import save_stats, stats_path
from lwd.data.writing import write_shard
from lwd.errors import UserError
from lwd.groups import Group, Layout
from lwd.training.loading import read_ahead

LAYOUT = Layout([Group("tex", 2), Group("sem", 1)])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Two shards, 24 images; image i holds i + 1 throughout, its twin -(i + 1), its label is i."""
    folder = tmp_path_factory.mktemp("shards")
    for number, rows in enumerate(torch.arange(24).split(10)):
        values = (rows + 1.0)[:, None, None, None].expand(-1, 2, 2, 2)
        latents = {"tex": values, "sem": values[:, :1]}
        twins = {name: -x for name, x in latents.items()}
        write_shard(folder / f"{number}.safetensors", LAYOUT, latents, rows, twins, values, -values)
    for key, channels in (("latents", 2), ("latents_sv", 1)):
        save_stats(stats_path(folder, key), torch.zeros(1, channels, 1, 1), torch.ones(1, channels, 1, 1))
    return folder


def images(step_batch):
    """Signed image numbers (B,), after checking that all of an image's tensors agree."""
    (x1, labels, features), _ = step_batch
    value = x1[:, 0, 0, 0]
    assert (x1 == value[:, None, None, None]).all() and (features == value[:, None, None, None]).all()
    assert torch.equal(labels, value.abs().long() - 1)
    return value


@pytest.mark.parametrize("world", [2, 4, 8])
def test_ranks_share_out_the_one_process_batch(path, world):
    shards = LatentShards(path, LAYOUT)
    whole = StepBatches(shards, 8, seed=3)
    parts = [StepBatches(shards, 8, seed=3, rank=rank, world=world) for rank in range(world)]
    for step in (0, 1, 2, 17):
        shares = [part[step] for part in parts]
        assert torch.equal(torch.cat([images(share) for share in shares]), images(whole[step]))
        places = torch.cat([share.places for share in shares])
        assert torch.equal(places, torch.arange(8)) and torch.equal(whole[step].places, places)


def test_a_step_s_batch_does_not_depend_on_the_past(path):
    one, two = (StepBatches(LatentShards(path, LAYOUT), 5, seed=3) for _ in range(2))
    forward = [images(one[step]) for step in range(12)]
    backward = [images(two[step]) for step in reversed(range(12))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))


def test_every_epoch_visits_every_image_once_in_a_new_order(path):
    batches = StepBatches(LatentShards(path, LAYOUT), 5, seed=3)  # 24 images: epochs end inside batches
    visits = torch.cat([images(batches[step]) for step in range(24)]).view(5, 24)
    assert torch.equal(visits.abs().sort(1).values, torch.arange(1.0, 25).expand(5, -1))
    assert len({tuple(row.abs().tolist()) for row in visits}) == 5


def test_seeds_change_order_and_flips(path):
    shards = LatentShards(path, LAYOUT)
    one, two = (torch.cat([images(StepBatches(shards, 24, seed=s)[step]) for step in range(20)]) for s in (0, 1))
    assert not torch.equal(one.abs(), two.abs())
    # 480 fair signs have a mean with standard error 1 / sqrt(480) = 0.046; five of them.
    for run in (one, two):
        assert abs(float(run.sign().mean())) < 0.23
    again = one.view(20, 24).sort(1, descending=False).values
    assert not torch.equal(again[0], again[1]), "flips must be drawn anew in every step"


def test_without_flip_no_twin(path):
    shards = LatentShards(path, LAYOUT, flip=False)
    assert (torch.cat([images(StepBatches(shards, 24, seed=0)[step]) for step in range(4)]) > 0).all()


def test_a_batch_that_does_not_divide(path):
    with pytest.raises(UserError, match="batch 8 does not divide over 3 processes"):
        StepBatches(LatentShards(path, LAYOUT), 8, seed=0, rank=0, world=3)


def test_a_loader_may_start_anywhere(path):
    batches = StepBatches(LatentShards(path, LAYOUT), 5, seed=3)
    loaded = list(DataLoader(batches, batch_size=None, sampler=range(3, 7)))
    assert len(loaded) == 4
    for step, step_batch in enumerate(loaded, start=3):
        assert torch.equal(images(step_batch), images(batches[step]))
        assert step_batch.batch.features.dtype == torch.float16 and step_batch.batch.labels.dtype == torch.int64


@pytest.mark.parametrize("ahead", [0, 1, 5, 50])
def test_reading_ahead_changes_nothing(path, ahead):
    batches = StepBatches(LatentShards(path, LAYOUT), 5, seed=3)
    held = list(read_ahead(batches.__getitem__, range(3, 40), ahead))  # all kept: no memory may be used twice
    assert len(held) == 37
    for step, step_batch in enumerate(held, start=3):
        assert torch.equal(images(step_batch), images(batches[step]))


def test_reading_ahead_raises_at_the_step_and_may_be_left(path, monkeypatch):
    shards = LatentShards(path, LAYOUT)
    batches = StepBatches(shards, 5, seed=3)
    for _ in zip(range(2), read_ahead(batches.__getitem__, range(10**9)), strict=False):
        pass
    right, calls = shards.read, iter(range(9))

    def read(*arguments):
        if next(calls) == 2:
            raise UserError("the third")
        return right(*arguments)

    monkeypatch.setattr(shards, "read", read)
    steps = read_ahead(batches.__getitem__, range(9))
    assert [len(next(steps).places) for _ in range(2)] == [5, 5]
    with pytest.raises(UserError, match="the third"):
        next(steps)


def test_draws_do_not_depend_on_who_shares_the_batch():
    whole = draw(3, 11, torch.arange(8), (3, 2, 2), 0.5)
    parts = [draw(3, 11, places, (3, 2, 2), 0.5) for places in torch.arange(8).split(2)]
    for name in ("x0", "u", "dropped"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name)), name
    assert whole.x0.shape == (8, 3, 2, 2) and whole.u.shape == whole.dropped.shape == (8,)
    for other in (draw(3, 12, torch.arange(8), (3, 2, 2), 0.5), draw(4, 11, torch.arange(8), (3, 2, 2), 0.5)):
        assert not (other.x0 == whole.x0).any() and not (other.u == whole.u).any()


def test_steps_drawn_together_are_the_steps_drawn_alone():
    """In any order, over the blocks' ends, with micro-batches between, another batch and another shape."""
    draws, places = StepDraws(3, 0.3), torch.arange(5, 12)
    calls = [(step, places, (6, 33)) for step in (*range(100), 7, 3, 2, 1000)]
    calls += [(step, part, (6, 33)) for step in range(4) for part in places.split(3)]
    calls += [(step, places[:3], shape) for step in range(3) for shape in ((4,), (), (2, 5, 1))]
    for step, mine, shape in calls:
        ours, alone = draws(step, mine, shape), draw(3, step, mine, shape, 0.3)
        assert all(torch.equal(getattr(ours, name), getattr(alone, name)) for name in ("x0", "u", "dropped"))
    mine = places.clone()
    draws(0, mine, (1,))
    mine += 1  # a loader that uses its memory again
    assert torch.equal(draws(0, mine, (1,)).x0, draw(3, 0, mine, (1,), 0.3).x0)


def test_draws_have_the_right_laws():
    draws = draw(0, 5, torch.arange(20_000), (1, 2, 1), 0.1)
    n = 20_000
    # Standard errors: normal mean 1 / sqrt(2 n), uniform mean 0.289 / sqrt(n), dropout 0.3 / sqrt(n), all correlations
    # 1 / sqrt(n); five of each.
    assert abs(float(draws.x0.mean())) < 5 / (2 * n) ** 0.5 and abs(float(draws.x0.std()) - 1) < 5 / (4 * n) ** 0.5
    assert abs(float(draws.u.mean()) - 0.5) < 5 * 0.289 / n**0.5 and draws.u.min() > 0 and draws.u.max() < 1
    assert abs(float(draws.dropped.float().mean()) - 0.1) < 5 * 0.3 / n**0.5
    together = torch.stack([*draws.x0.flatten(1).T, draws.u, draws.dropped.float()])
    assert (torch.corrcoef(together) - torch.eye(4)).abs().max() < 5 / n**0.5


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 0), (1.0, 1000)])
def test_label_dropout_of_nothing_and_everything(rate, expected):
    assert int(draw(0, 0, torch.arange(1000), (1, 1, 1), rate).dropped.sum()) == expected
