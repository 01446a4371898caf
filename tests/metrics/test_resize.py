"""TensorFlow 1's bilinear resize against its kernel, transcribed loop by loop."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lwd.metrics.resize import tf1_resize_bilinear


def kernel(image, size):
    """`resize_bilinear_op.cc` with the legacy scaler, for one (H, W) array: float32 throughout, pixel by pixel."""
    f32 = np.float32

    def taps(size_in):
        scale = f32(size_in) / f32(size)
        for i in range(size):
            place = f32(i) * scale
            floor = np.floor(place)
            yield max(int(floor), 0), min(int(np.ceil(place)), size_in - 1), f32(place - floor)

    image = image.astype(f32)
    out = np.empty((size, size), f32)
    xs = list(taps(image.shape[1]))
    for y, (top, bottom, y_lerp) in enumerate(taps(image.shape[0])):
        for x, (left, right, x_lerp) in enumerate(xs):
            upper = image[top, left] + (image[top, right] - image[top, left]) * x_lerp
            lower = image[bottom, left] + (image[bottom, right] - image[bottom, left]) * x_lerp
            out[y, x] = upper + (lower - upper) * y_lerp
    return out


def picture(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(32, 32), (64, 48), (256, 256), (1, 5), (299, 300), (320, 301), (600, 7)])
def test_the_kernel_s_bits(shape):
    """Up, down, aspect ratios, one row; edge pixels are among them."""
    image = picture(1, 1, *shape)
    found = tf1_resize_bilinear(image, 299)[0, 0].numpy()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, kernel(image[0, 0].numpy(), 299))


def test_299_is_left_alone():
    image = picture(2, 3, 299, 299)
    assert torch.equal(tf1_resize_bilinear(image, 299), image.float())


def test_by_hand():
    """Doubling 0, 2: read at 0, 0.5, 1, 1.5, and beyond the last pixel its value."""
    image = torch.tensor([[[[0, 2]]]])
    assert tf1_resize_bilinear(image, 4)[0, 0, 0].tolist() == [0, 1, 2, 2]


def test_it_is_neither_of_pytorch_s():
    image = picture(1, 3, 64, 64)
    found = tf1_resize_bilinear(image, 299)
    for options in ({"align_corners": False}, {"align_corners": True}, {"antialias": True}):
        other = F.interpolate(image.float(), (299, 299), mode="bilinear", **options)
        assert float((found - other).abs().mean()) > 5  # grey levels


def test_every_image_and_channel_by_itself():
    images = picture(3, 2, 40, 50)
    together = tf1_resize_bilinear(images, 70)
    for n in range(3):
        for c in range(2):
            assert torch.equal(together[n, c], tf1_resize_bilinear(images[n : n + 1, c : c + 1], 70)[0, 0])


def test_the_argument_keeps_its_values():
    image = picture(1, 1, 20, 20).float()
    before = image.clone()
    tf1_resize_bilinear(image, 299)
    assert torch.equal(image, before)
