"""Features brought to another grid, against loops over the positions that each of the new ones covers."""

from itertools import product

import numpy as np
import pytest
import torch

from lwd.flow import on_grid


def means(features, grid):
    """Of the positions from floor(i n / m) up to ceil((i + 1) n / m), along each axis."""
    out = torch.empty(*features.shape[:2], *grid)
    for place in product(*map(range, grid)):
        window = [
            slice(i * n // m, -(-(i + 1) * n // m)) for i, n, m in zip(place, features.shape[2:], grid, strict=True)
        ]
        out[(..., *place)] = features[(..., *window)].flatten(2).mean(2)
    return out


@pytest.mark.parametrize(
    ("own", "grid"),
    [((4, 4), (2, 2)), ((6,), (2,)), ((4, 2, 6), (2, 1, 3)), ((5, 7), (3, 7)), ((4, 4), (3, 3))],
    ids=["patch 2", "sequence", "video", "one axis", "no multiple"],
)
def test_shorter_axes_are_means(own, grid):
    features = torch.randn(2, 3, *own, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(on_grid(features, grid), means(features, grid), rtol=1e-5, atol=1e-6)  # float32 sums


@pytest.mark.parametrize(("own", "grid"), [((2,), (4,)), ((3, 2), (7, 5)), ((4, 2), (2, 4))])
def test_longer_axes_are_interpolated_linearly(own, grid):
    """Positions are the middles of equal cells; beyond the outermost ones their values go on. Axis by axis by numpy."""
    features = torch.randn(1, 2, *own, generator=torch.Generator().manual_seed(0))
    shorter = tuple(map(min, own, grid))
    expected = means(features, shorter).numpy()
    for axis, (n, m) in enumerate(zip(shorter, grid, strict=True), start=2):
        new, old = (np.arange(m) + 0.5) / m, (np.arange(n) + 0.5) / n
        expected = np.apply_along_axis(lambda line, new=new, old=old: np.interp(new, old, line), axis, expected)
    np.testing.assert_allclose(on_grid(features, grid).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_same_grid_is_left_alone_and_others_are_refused():
    half = torch.randn(2, 3, 4, 4).half()
    assert on_grid(half, (4, 4)) is half
    assert on_grid(half, (2, 2)).dtype == torch.float32
    torch.testing.assert_close(on_grid(half, (1, 1))[..., 0, 0], half.float().mean((2, 3)), rtol=1e-5, atol=1e-6)
    for grid in ((4,), (2, 2, 4), ()):
        with pytest.raises(ValueError, match="cannot be brought to"):
            on_grid(half, grid)
