"""Precision, recall, density, coverage: hand-placed points, and SciPy's distances in float64 with which all agrees."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

import lwd.metrics.balls as balls
import lwd.metrics.distances as module
from lwd.metrics import manifold_metrics, precision_recall
from lwd.metrics.distances import Points, neighbour_distances, smallest, squared_distances


def line(*places):
    return torch.tensor(places, dtype=torch.float64)[:, None]


def features(rows, dim=64, seed=0, scale=1.0, inner=6):
    """Features of few intrinsic dimensions, as a network's are, so that balls overlap."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(inner, dim, generator=torch.Generator().manual_seed(99))
    return (scale * torch.randn(rows, inner, generator=generator) @ mix).relu()


def definition(reference, samples, k=3, density_k=5):
    """The papers' formulas with all distances at once: precise, recalled, balls, covered."""
    x, y = reference.double().numpy(), samples.double().numpy()
    between = cdist(x, y, "sqeuclidean")
    # The k-th nearest other point: index k of a sorted row, the point itself being at index 0.
    radius_x, radius_y = (np.sort(cdist(z, z, "sqeuclidean"), 1)[:, k] for z in (x, y))
    density_radius = np.sort(cdist(x, x, "sqeuclidean"), 1)[:, density_k]
    return (
        (between <= radius_x[:, None]).any(0),
        (between <= radius_y).any(1),
        (between < density_radius[:, None]).sum(0),
        between.min(1) < density_radius,
    )


def assert_definition(reference, samples, k=3, density_k=5, block=2048):
    result = manifold_metrics(reference, samples, k, density_k, block=block)
    precise, recalled, balls, covered = definition(reference, samples, k, density_k)
    assert result.precise.tolist() == precise.tolist()
    assert result.recalled.tolist() == recalled.tolist()
    assert result.balls.tolist() == balls.tolist()
    assert result.covered.tolist() == covered.tolist()
    assert result.precision == precise.mean()
    assert result.recall == recalled.mean()
    assert result.density == pytest.approx(balls.mean() / density_k, rel=1e-14)
    assert result.coverage == covered.mean()
    return result


def test_the_definition_at_2000_x_64():
    result = assert_definition(features(2000), features(1500, seed=1, scale=1.5))
    assert 0.1 < result.precision < result.recall < 0.995  # neither answer is a matter of course


@pytest.mark.parametrize("block", [7, 64, 100])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_blocks_do_not_matter(block, k):
    assert_definition(features(150), features(111, seed=1, scale=0.8), k, block=block)


def test_fewer_images_than_features():
    assert_definition(features(60, 200), features(40, 200, seed=1))


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_far_from_the_origin(offset):
    """Float32 norms of 1e5 are 64e10, known to 1e4: a plain float32 formula answers at random there."""
    assert_definition(features(300) + offset, features(200, seed=1) + offset)


def test_one_image_far_away():
    """Its norm makes the slack of everything that it meets larger than all other distances."""
    x, y = features(300), features(200, seed=1)
    x[17] *= 1e5
    y[3] = 1e6
    assert_definition(x, y)


def test_ties_on_a_lattice():
    """Integers: every distance has hundreds of equals, and lies on the surface of balls."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(0, 5, (n, 4), generator=generator).double() for n in (300, 250))
    assert_definition(x, y)
    assert_definition(x.float(), y.float(), block=64)


def test_copies():
    """Sets with each image five times: radii of 0, which still hold copies."""
    x = features(40).repeat(5, 1)
    result = assert_definition(x, torch.cat([x[:20], features(30, seed=1)]))
    assert result.precise[:20].all()


@pytest.mark.parametrize("seed", range(3))
def test_near_copies_in_single_precision(seed):
    """Distances of 1e-7 beside norms of 10, far below what float32 products resolve."""
    generator = torch.Generator().manual_seed(seed)
    x = features(100, seed=seed).repeat(3, 1)
    near = x + 1e-6 * torch.randn(x.shape, generator=generator)
    assert_definition(near, near[torch.randperm(300, generator=generator)] + 1e-7)


@pytest.mark.parametrize(("first", "held"), [(1, 1), (2, 100), (8, 2**22)])
def test_ties_and_copies_however_they_are_decided(first, held, monkeypatch):
    """Lattice points and copies of single ones, all in doubt: in batches of any size, by any number of first tries."""
    monkeypatch.setattr(balls, "_FIRST", first)
    monkeypatch.setattr(balls, "_DISTANCES", held)
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(0, 3, (n, 5), generator=generator).float() + 1000 for n in (90, 70))
    x[:30], y[:20] = x[0], x[0]
    assert_definition(x, y)
    assert_definition(y, x)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_copies_are_decided_by_few_distances(share, monkeypatch):
    """400 samples, all copies of one reference image, of which half or all the reference are, too: no more than the
    first tries of each of the four questions in float64, where all pairs were 160 000 for each question."""
    pairs = []

    def counted(x, rows, y, columns):
        pairs.append(len(rows))
        return squared_distances(x, rows, y, columns)

    monkeypatch.setattr(balls, "squared_distances", counted)
    x = torch.randn(400, 16, generator=torch.Generator().manual_seed(0))
    x[: int(400 * share)] = x[0]
    assert_definition(x, x[:1].expand(400, -1).contiguous())
    assert 0 < sum(pairs) <= 4 * 400 * balls._FIRST


def test_identical_sets():
    x = features(200)
    result = manifold_metrics(x, x)
    assert (result.precision, result.recall, result.coverage) == (1, 1, 1)
    assert result.density >= 1


def test_sets_far_apart():
    result = manifold_metrics(features(50), features(50) + 1000)
    assert (result.precision, result.recall, result.density, result.coverage) == (0, 0, 0, 0)


def test_by_hand():
    """Reference 0, 1, 3, 7 with k = 1: radii 1, 1, 2, 4. Samples -1, 2, 5.5, 12: radii 3, 3, 3.5, 6.5."""
    reference, samples = line(0, 1, 3, 7), line(-1, 2, 5.5, 12)
    result = manifold_metrics(reference, samples, k=1, density_k=1)
    # -1 is on the surface of 0's ball (closed: inside), 2 on that of 1 and within 3's, 5.5 within 7's, 12 outside.
    assert result.precise.tolist() == [True, True, True, False]
    # 0 and 1 are within 2's, 3 within 2's, 7 within 5.5's.
    assert result.recalled.tolist() == [True, True, True, True]
    # Open balls: -1 in none, 2 in 3's only, 5.5 in 7's only.
    assert result.balls.tolist() == [0, 1, 1, 0]
    assert result.covered.tolist() == [False, False, True, True]
    assert precision_recall(reference, samples, k=1) == (0.75, 1.0)


def test_a_sample_does_not_count_as_its_own_neighbour():
    """With itself counted, k = 1 would make every radius 0 and every precision of new samples 0."""
    assert precision_recall(line(0, 2, 4), line(1, 3, 5), k=1) == (1.0, 1.0)
    # k = 2: the ball around 2 reaches 2 on either side, those around 0 and 4 reach 4.
    assert precision_recall(line(0, 2, 4), line(8, 8.001, 9), k=2) == (1 / 3, 0.0)


def test_larger_balls_hold_more():
    x, y = features(300), features(300, seed=1, scale=0.8)
    values = [precision_recall(x, y, k) for k in (1, 2, 4, 8)]
    assert values == sorted(values)
    assert values[0].precision < values[-1].precision


def test_order_does_not_matter():
    x, y = features(300), features(200, seed=1)
    generator = torch.Generator().manual_seed(5)
    order_x, order_y = torch.randperm(300, generator=generator), torch.randperm(200, generator=generator)
    one, two = manifold_metrics(x, y), manifold_metrics(x[order_x], y[order_y])
    assert torch.equal(one.precise[order_y], two.precise)
    assert torch.equal(one.recalled[order_x], two.recalled)
    assert torch.equal(one.balls[order_y], two.balls)
    assert torch.equal(one.covered[order_x], two.covered)


def test_precision_and_recall_swap_with_the_sets():
    x, y = features(300), features(200, seed=1, scale=0.8)
    one, two = precision_recall(x, y), precision_recall(y, x)
    assert (one.precision, one.recall) == (two.recall, two.precision)


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_radii_do_not_depend_on_how_many_candidates_are_kept(extra, monkeypatch):
    """With none to spare nearly every radius must be looked for again."""
    monkeypatch.setattr(module, "EXTRA", extra)
    x = torch.cat([features(100), features(100) + 1e-5])
    expected = np.sort(cdist(x.double().numpy(), x.double().numpy(), "sqeuclidean"), 1)[:, 3]
    found = neighbour_distances(Points(x, x.double().mean(0)), [3], 64)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-14)  # the same differences, summed in another order


@pytest.mark.parametrize("columns", [3, 64, 160, 161])
def test_the_smallest_of_each_row(columns):
    values = torch.randint(0, 50, (20, columns), generator=torch.Generator().manual_seed(0)).float()
    for array in (values, values.T.contiguous().T):  # rows in memory, and columns
        found, where = smallest(array, 3)
        assert torch.equal(found, values.sort(1).values[:, :3])
        assert torch.equal(values.gather(1, where), found)
        assert all(len(set(row)) == 3 for row in where.tolist())


# ADM's float16 distances


def half_definition(x, y, k=3):
    """ADM's `_batch_pairwise_distances` on float16 arrays, its radii, its comparisons."""

    def between(a, b):
        a, b = a.numpy().astype(np.float16), b.numpy().astype(np.float16)
        norm_a, norm_b = (np.square(z).astype(np.float32).sum(1).astype(np.float16) for z in (a, b))
        product = (a.astype(np.float32) @ b.astype(np.float32).T).astype(np.float16)
        result = np.maximum(norm_a[:, None] - np.float16(2) * product + norm_b[None], np.float16(0))
        assert result.dtype == np.float16
        return result.astype(np.float32)

    radii = [np.partition(between(z, z), k, axis=1)[:, k] for z in (x, y)]
    distances = between(x, y)
    return (distances <= radii[0][:, None]).any(0).mean(), (distances <= radii[1]).any(1).mean()


def test_adm_s_float16():
    x, y = features(500), features(400, seed=1, scale=0.8)
    half = precision_recall(x, y, distances="adm-float16")
    # A sum in float32 that falls on the other side of a float16 boundary may change a point or two.
    assert half == pytest.approx(half_definition(x, y), abs=2 / 400)
    assert half != precision_recall(x, y)
    assert half == pytest.approx(precision_recall(x, y), abs=0.05)


def test_adm_s_float16_falls_back_where_it_overflows():
    x, y = 100 * features(500), 100 * features(400, seed=1, scale=0.8)
    assert precision_recall(x, y, distances="adm-float16") == precision_recall(x, y)


# Errors


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samples": features(50, 32)}, "different widths, 64 and 32"),
        ({"samples": features(50)[0]}, "samples: features must be real"),
        ({"reference": features(50).long()}, "reference: features must be real"),
        ({"reference": features(1)}, "reference: needs at least 2 rows of features, got 1"),
        ({"samples": features(50).index_fill(0, torch.tensor(9), float("inf"))}, "samples: .* not finite in row 9"),
        ({"samples": features(5)}, "below the number of features, 5; got 3 and 5"),
        ({"k": 0}, "k must be at least 1"),
        ({"density_k": 0}, "k must be at least 1"),
        ({"distances": "float16"}, "'exact' or 'adm-float16'"),
        ({"distances": "adm-float16"}, "density_k=None"),
    ],
)
def test_errors(change, words):
    with pytest.raises(ValueError, match=words):
        manifold_metrics(**{"reference": features(50), "samples": features(50)} | change)
