import pytest
import torch

from lwd.datasets.builtin import digits
from lwd.encoders.texture import PixelUnshuffle, TextureEncoder


def test_inverse_is_exact_on_the_digits():
    encoder: TextureEncoder = PixelUnshuffle(2)
    images = digits("heldout")[0]
    latents = encoder.encode(images)
    assert latents.shape == (len(images), 4, 4, 4)
    assert torch.equal(encoder.decode(latents), images)


@pytest.mark.parametrize(("channels", "factor"), [(1, 1), (3, 2), (2, 4)])
def test_both_inverses_for_other_sizes(channels, factor):
    encoder = PixelUnshuffle(factor)
    images = torch.arange(2 * channels * 8 * 12.0).reshape(2, channels, 8, 12)
    latents = encoder.encode(images)
    assert latents.shape == (2, channels * factor**2, 8 // factor, 12 // factor)
    assert torch.equal(encoder.decode(latents), images)
    assert torch.equal(encoder.encode(encoder.decode(latents)), latents)


def test_channel_order():
    images = torch.rand(1, 3, 8, 8)
    latents = PixelUnshuffle(2).encode(images)
    for k in range(3):
        for i in range(2):
            for j in range(2):
                assert torch.equal(latents[:, 4 * k + 2 * i + j], images[:, k, i::2, j::2])


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="at least 1"):
        PixelUnshuffle(0)
    with pytest.raises(ValueError, match="does not divide"):
        PixelUnshuffle(3).encode(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="does not fit"):
        PixelUnshuffle(2).decode(torch.zeros(1, 6, 4, 4))
