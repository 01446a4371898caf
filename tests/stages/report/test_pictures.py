"""Pictures: contact sheets, latents in colour, which samples are shown, and when a prediction has settled."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from hand_made import LAYOUT, config
from PIL import Image

from lwd.images.colours import LatentColours
from lwd.plots.images import sheet, tile
from lwd.plots.theme import COLOURS, ramp_colour, variant_colour
from lwd.sample.path import Trajectory
from lwd.stages.report.samples import pick, sample_folders
from lwd.stages.report.strip import settled
from lwd.stages.report.variants import read_variants


def opened(uri: str) -> torch.Tensor:
    """A data URI as uint8 (H, W, channels)."""
    head, data = uri.split(",", 1)
    assert head == "data:image/png;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    return torch.from_numpy(np.array(picture))


def test_a_sheet_has_see_through_gaps_and_the_pixels_of_the_images():
    images = torch.stack([torch.full((1, 8, 8), value) for value in (-1.0, 0.0, 1.0)])
    pixels = opened(sheet(images, columns=2))
    assert pixels.shape == (8 * 19, 8 * 19, 4)  # two rows and columns of 8, three gaps, each pixel enlarged to 8
    assert (pixels[:8, :, 3] == 0).all() and (pixels[8:72, 8:72] == torch.tensor([0, 0, 0, 255])).all()
    assert (pixels[80:144, 8:72, :3] == 255).all() and (pixels[80:144, 80:, 3] == 0).all()


def test_large_and_coloured_images_are_made_smaller():
    assert opened(sheet(torch.zeros(4, 3, 256, 256), columns=2)).shape[:2] == (258, 258)
    assert opened(tile(torch.zeros(3, 256, 256))).shape == (128, 128, 3)
    assert opened(tile(torch.zeros(1, 8, 8))).shape == (8, 8, 3)


@pytest.mark.parametrize("channels", [1, 2, 3, 16])
def test_latents_in_colour(channels):
    x = torch.randn(64, channels, 4, 4, generator=torch.Generator().manual_seed(channels))
    colours = LatentColours.fit(x)
    images = colours(x)
    assert images.shape == (64, 3, 4, 4) and images.abs().max() <= 1
    mean = x.mean((0, 2, 3))
    grey = colours(mean[None, :, None, None])[0, :, 0, 0]
    assert torch.allclose(grey, grey.mean().expand(3), atol=0.01)
    apart = colours(torch.stack([mean - x.std((0, 2, 3)), mean + x.std((0, 2, 3))])[:, :, None, None])
    assert (apart[0] - apart[1]).abs().max() > 0.1


def test_one_column_a_class_where_the_labels_allow_it():
    labels = torch.tensor([2, 0, 1, 1, 0, 2, 2, 0, 1, 1])
    assert pick(labels).tolist() == [[1, 2, 0], [4, 3, 5], [7, 8, 6]]
    assert pick(torch.arange(2000) % 100).shape == (6, 10)
    assert pick(torch.full((100,), 10)).tolist() == torch.arange(60).view(6, 10).tolist()
    assert pick(torch.tensor([0, 1, 2])).tolist() == [[0, 1, 2]]


def test_of_each_variant_the_first_seed_at_its_largest_budget(output):
    settings = config(output)
    folders = sample_folders(settings, read_variants(settings), "samples.json")
    assert [f.path.name for f in folders] == ["together-seed0-2000", "apart-seed0-2000", "taught-seed0-2000"]


def test_settled_is_the_share_of_the_way():
    predictions = torch.zeros(3, 2, LAYOUT.channels, 4, 4)
    predictions[:, :, :4] = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1, 1)  # half of the way: a quarter is left
    predictions[:, :, 4:] = torch.tensor([0.0, 1.0, 1.0]).view(3, 1, 1, 1, 1)
    trajectory = Trajectory(torch.linspace(0, 1, 3), torch.zeros(3, 2), predictions, predictions)
    assert settled(trajectory, LAYOUT).tolist() == [[0.0, 0.0], [0.75, 1.0], [1.0, 1.0]]


def test_colours_exist_for_any_number_of_lines():
    assert all(variant_colour(i) in COLOURS for i in range(30))
    for count in range(1, 15):
        names = [ramp_colour(i, count) for i in range(count)]
        assert set(names) <= set(COLOURS) and len(set(names)) == min(count, 12)
