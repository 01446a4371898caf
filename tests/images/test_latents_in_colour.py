"""Latents as pictures: whatever their axes, every position has the colour that its vector has in an image."""

import pytest
import torch

from lwd.images.colours import LatentColours
from lwd.images.sheets import side_by_side


def draw(*shape):
    return torch.randn(20, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize(
    ("grid", "size"),
    [((), (1, 1)), ((24,), (3, 24)), ((5,), (1, 5)), ((4, 6), (4, 6)), ((3, 4, 6), (4, 18)), ((2, 3, 4, 6), (4, 36))],
)
def test_a_pixel_for_every_position(channels, grid, size):
    x = draw(channels, *grid)
    colours = LatentColours.fit(x)
    pictures = colours(x)
    assert pictures.shape == (20, 3, *size) and pictures.isfinite().all() and pictures.abs().max() <= 1
    vectors = x.flatten(2) if grid else x[..., None]
    one_each = colours(vectors[..., None, :])  # as images of one row, (N, 3, 1, positions)
    as_sets = [{tuple(pixel) for pixel in each.flatten(1).T.tolist()} for each in (pictures, one_each)]
    assert as_sets[0] == as_sets[1]


def test_a_long_video_is_shown_in_part():
    """Eight of fifteen frames: every second one, the first and the last among them, side by side."""
    x = draw(3, 15, 4, 6)
    colours = LatentColours.fit(x)
    pictures = colours(x)
    assert pictures.shape == (20, 3, 4, 48)
    for place, frame in enumerate(range(0, 15, 2)):
        assert torch.equal(pictures[..., place * 6 : place * 6 + 6], colours(x[:, :, frame]))


def test_side_by_side():
    """A picture, a lower one enlarged a whole number of times and the rest left light; a gap of one between them."""
    high, low = -torch.ones(2, 3, 5, 4), torch.zeros(2, 3, 2, 3)
    both = side_by_side([high, low])
    assert both.shape == (2, 3, 5, 4 + 1 + 6)
    assert (both[..., :4] == -1).all() and (both[..., 4] == 1).all()
    assert (both[..., :4, 5:] == 0).all() and (both[..., 4, 5:] == 1).all()
    assert torch.equal(side_by_side([high]), high)
