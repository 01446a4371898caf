"""Counter-based numbers: known answers, independence of everything but their names, and their distribution."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lwd.runtime import seeding
from lwd.runtime.seeding import Stream, batch_indices, epoch_order, integer, normal, philox, uniform

INDEX = torch.arange(100)
REPRODUCIBLY = settings(derandomize=True, database=None, deadline=None)
WORDS = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_random123s_known_answers(counter, key, expected):
    """kat_vectors of the authors' Random123, philox4x32 with 10 rounds."""

    def words(text):
        return tuple(torch.tensor(int(word, 16)) for word in text.split())

    assert [f"{word.item():08x}" for word in philox(words(counter), words(key))] == expected.split()


@settings(REPRODUCIBLY, max_examples=100)
@given(st.tuples(WORDS, WORDS, WORDS, WORDS), st.tuples(WORDS, WORDS))
def test_philox_is_the_papers_recurrence_in_python_integers(counter, key):
    """int64 products wrap; Python's do not."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b % 2**32, (a >> 32) ^ c3 ^ k1, a % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    words = philox(tuple(map(torch.tensor, counter)), tuple(map(torch.tensor, key)))
    assert [word.item() for word in words] == [c0, c1, c2, c3]


def test_the_layout_of_counter_and_key_is_fixed():
    """Counter (block, index, step, stream), key (seed low, seed high), 23 high bits of each word: a file format."""
    seed, step, index = 0x123456789ABCDEF, 77, 1234
    numbers = uniform(Stream.FLIP, seed, step, torch.tensor([index]), (6,))
    words = []
    for block in (0, 1):
        counter = tuple(map(torch.tensor, (block, index, step, 3)))
        words += philox(counter, (torch.tensor(seed & 0xFFFFFFFF), torch.tensor(seed >> 32)))
    assert numbers[0].tolist() == [((word.item() >> 9) + 0.5) / 2**23 for word in words[:6]]


def test_streams_keep_their_numbers():
    """Renumbering a stream would change every published run."""
    expected = ["NOISE", "TIME", "LABEL_DROPOUT", "FLIP", "ORDER", "INITIALISE", "SAMPLE_NOISE"]
    assert [Stream(i).name for i in range(7)] == expected
    assert len(Stream.__members__) == len(set(Stream))  # two names of one number would share their draws


@pytest.mark.parametrize("draw", [uniform, normal])
@settings(REPRODUCIBLY, max_examples=30)
@given(order=st.permutations(range(10)), cut=st.integers(0, 10))
def test_a_samples_numbers_do_not_depend_on_its_batch(draw, order, cut):
    index = torch.tensor(order)
    together = draw(Stream.NOISE, 3, 5, INDEX, (2, 3))
    assert torch.equal(draw(Stream.NOISE, 3, 5, index[:cut], (2, 3)), together[index[:cut]])
    assert torch.equal(draw(Stream.NOISE, 3, 5, index[cut:], (2, 3)), together[index[cut:]])


@pytest.mark.parametrize("draw", [uniform, normal])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 31])
def test_fewer_numbers_are_the_first_of_more(draw, count):
    more = draw(Stream.NOISE, 3, 5, INDEX, (33,))
    assert torch.equal(draw(Stream.NOISE, 3, 5, INDEX, (count,)), more[:, :count])


def test_shapes():
    assert uniform(Stream.TIME, 0, 0, INDEX).shape == (100,)
    assert torch.equal(uniform(Stream.TIME, 0, 0, INDEX), uniform(Stream.TIME, 0, 0, INDEX, (1,))[:, 0])
    assert normal(Stream.NOISE, 0, 0, INDEX[:2], (3, 4, 5)).shape == (2, 3, 4, 5)
    assert uniform(Stream.TIME, 0, 0, INDEX[:0], (3,)).shape == (0, 3)
    assert uniform(Stream.TIME, 0, 0, INDEX, (2, 2)).dtype == torch.float32
    assert torch.equal(uniform(Stream.TIME, 0, 0, INDEX, (2, 2)).flatten(1), uniform(Stream.TIME, 0, 0, INDEX, (4,)))


def test_each_sample_may_have_its_own_seed():
    """Also two samples of one index: `lwd sample` names samples by their seeds."""
    seeds = torch.tensor([7, -1, 2**40 + 7, 7])
    index = torch.tensor([0, 0, 0, 5])
    numbers = normal(Stream.SAMPLE_NOISE, seeds, 0, index, (6,))
    for i in range(4):
        alone = normal(Stream.SAMPLE_NOISE, int(seeds[i]), 0, index[i : i + 1], (6,))
        assert torch.equal(numbers[i : i + 1], alone)
    assert len({tuple(row) for row in numbers.tolist()}) == 4


def test_stream_seed_step_and_index_all_count():
    """Each coordinate on its own changes every number; both halves of a 64-bit seed count."""
    rows = [
        uniform(stream, seed, step, torch.tensor([index]), (8,))
        for stream, seed, step, index in [
            *((s, 0, 0, 0) for s in Stream),
            *((Stream.NOISE, seed, 0, 0) for seed in (1, 2, 2**32, 2**62, -1)),
            *((Stream.NOISE, 0, step, 0) for step in (1, 2, 2**31, 2**32 - 1)),
            *((Stream.NOISE, 0, 0, index) for index in (1, 2, 2**31, 2**32 - 1)),
        ]
    ]
    numbers = torch.cat(rows)
    assert len(numbers.unique()) > numbers.numel() - 2  # some 170 draws of 2^23 values: one chance match is rare
    assert len({tuple(row) for row in numbers.tolist()}) == len(numbers)


@pytest.mark.parametrize(("word", "number"), [(0, 2.0**-24), (2**32 - 1, 1 - 2.0**-24)])
def test_the_interval_is_open_at_the_extreme_bit_patterns(monkeypatch, word, number):
    monkeypatch.setattr(seeding, "philox", lambda counter, key: (torch.full((1, 1), word),) * 4)
    value = uniform(Stream.TIME, 0, 0, torch.tensor([0]), (4,))
    assert (value == number).all() and 0 < value[0, 0] < 1
    gauss = normal(Stream.NOISE, 0, 0, torch.tensor([0]), (4,))
    assert gauss.isfinite().all()
    # float32 inverse CDF at a tail of 6e-8: 5.29, to 1e-3
    assert gauss[0, 0].item() == pytest.approx(stats.norm.ppf(number), abs=1e-3)
    assert gauss.abs().max() < 5.4


def test_a_number_is_the_same_on_a_second_call():
    assert torch.equal(normal(Stream.NOISE, 1, 2, INDEX, (7,)), normal(Stream.NOISE, 1, 2, INDEX, (7,)))


# distribution


def test_uniform_and_normal_numbers_have_their_distribution():
    """Kolmogorov-Smirnov over indices, over steps, over seeds and within a sample: 20 000 fixed numbers each."""
    index = torch.arange(20_000)
    one = torch.tensor([0])
    draws = {
        "indices": lambda draw: draw(Stream.NOISE, 0, 0, index, (1,)),
        "seeds": lambda draw: draw(Stream.NOISE, index, 0, torch.zeros_like(index), (1,)),
        "within": lambda draw: draw(Stream.NOISE, 0, 0, one, (20_000,)),
        "steps": lambda draw: torch.cat([draw(Stream.NOISE, 0, step, index[:20], (1,)) for step in range(1000)]),
    }
    for draw, name in ((uniform, "uniform"), (normal, "norm")):
        for sampler in draws.values():
            # fixed numbers, so no flakiness: p > 1e-3 for sound generators in all but 0.8 % of choices of constants
            assert stats.kstest(sampler(draw).flatten().double().numpy(), name).pvalue > 1e-3


def test_neighbours_are_uncorrelated():
    """Along indices, positions, steps, streams and seeds: |r| < 5 / sqrt(n)."""
    index, shape = torch.arange(1000), (20,)
    base = normal(Stream.NOISE, 0, 0, index, shape)
    others = {
        "index": normal(Stream.NOISE, 0, 0, index + 1, shape),
        "position": base.roll(1, dims=1),
        "block": base.roll(4, dims=1),
        "step": normal(Stream.NOISE, 0, 1, index, shape),
        "stream": normal(Stream.SAMPLE_NOISE, 0, 0, index, shape),
        "seed": normal(Stream.NOISE, 1, 0, index, shape),
    }
    for other in others.values():
        r = np.corrcoef(base.flatten().numpy(), other.flatten().numpy())[0, 1]
        assert abs(r) < 5 / np.sqrt(base.numel())


def test_all_23_bits_are_fair():
    bits = (uniform(Stream.NOISE, 0, 0, torch.arange(5000), (4,)).double() * 2**23 - 0.5).long().flatten()
    shares = torch.stack([(bits >> b & 1).double().mean() for b in range(23)])
    assert ((shares - 0.5).abs() < 5 * 0.5 / np.sqrt(len(bits))).all()  # 5 standard errors


def test_integer_is_a_seed_of_its_own_per_stream_seed_and_step():
    values = [integer(stream, seed, step) for stream in Stream for seed in (0, 1, 2**40) for step in (0, 1)]
    assert all(isinstance(v, int) and 0 <= v < 2**63 for v in values)
    assert len(set(values)) == len(values)
    assert integer(Stream.ORDER, 1, 1) == integer(Stream.ORDER, 1, 1)
    assert max(values) > 2**40  # more than 32 bits: no birthday collisions between runs


# the order of images


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_an_epoch_order_is_a_permutation_of_its_own(size):
    orders = [epoch_order(seed, epoch, size) for seed in (0, 1) for epoch in (0, 1)]
    assert all(torch.equal(order.sort().values, torch.arange(size)) for order in orders)
    assert torch.equal(orders[0], epoch_order(0, 0, size))
    if size == 1000:
        assert len({tuple(order.tolist()) for order in orders}) == 4


@settings(REPRODUCIBLY, max_examples=100)
@given(st.integers(0, 2**40), st.integers(1, 40), st.integers(1, 40))
def test_every_image_is_seen_once_an_epoch_whatever_the_batch_size(seed, batch, size):
    """Batches run across epoch boundaries, and may be larger than the data set."""
    epochs = 3
    steps = -(-epochs * size // batch)
    batches = [batch_indices(seed, step, batch, size) for step in range(steps)]
    assert all(len(indices) == batch for indices in batches)
    seen = torch.cat(batches)[: epochs * size].view(epochs, size)
    for epoch in range(epochs):
        assert torch.equal(seen[epoch], epoch_order(seed, epoch, size))
        assert torch.equal(seen[epoch].sort().values, torch.arange(size))


def test_batches_do_not_depend_on_which_were_asked_for_before():
    """A restart at step 5 sees what an uninterrupted run saw there."""
    epoch_order.cache_clear()
    late = batch_indices(3, 5, 4, 7)
    for step in (0, 1, 9, 5):
        again = batch_indices(3, step, 4, 7)
    assert torch.equal(late, again)


def test_torchs_own_generator_is_left_alone():
    before = torch.get_rng_state()
    normal(Stream.NOISE, 0, 0, INDEX, (3,))
    epoch_order.cache_clear()
    batch_indices(0, 0, 5, 3)
    with seeding.seeded(Stream.INITIALISE, 4):
        torch.randn(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seeded_block_repeats_itself_and_differs_by_stream_and_seed():
    def draw(stream, seed):
        torch.rand(1)  # whatever came before
        with seeding.seeded(stream, seed):
            return torch.randn(4)

    assert torch.equal(draw(Stream.INITIALISE, 4), draw(Stream.INITIALISE, 4))
    assert not torch.equal(draw(Stream.INITIALISE, 4), draw(Stream.INITIALISE, 5))
    assert not torch.equal(draw(Stream.INITIALISE, 4), draw(Stream.ORDER, 4))
