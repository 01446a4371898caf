"""The small VAE against closed forms and what it must reach; area averages against sums by hand."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from lwd.encoders.downsample import Downsample, area_average
from lwd.encoders.posterior import Posterior
from lwd.encoders.small import SmallCNN, SmallViT
from lwd.encoders.small_vae import SmallVAE, random_crops, reconstruction, train_vae


def ramps(count, size=32, channels=3):
    """Smooth uint8 images (N, c, H, H): a colour gradient each, of random direction."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    slopes = torch.rand(count, channels, 2, 1, 1, generator=generator)
    return ((slopes[:, :, 0] * x + slopes[:, :, 1] * y) * 127.5).to(torch.uint8)


@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_shapes(factor):
    vae, images = SmallVAE(5, factor, 1), torch.randn(2, 1, 32, 48)
    latents = vae.encode(images)
    assert latents.shape == (2, 5, 32 // factor, 48 // factor) and vae.decode(latents).shape == images.shape


def test_what_does_not_fit_is_refused():
    for factor in (0, 1, 3, 6):
        with pytest.raises(ValueError, match="power of two"):
            SmallVAE(4, factor)
    vae = SmallVAE(4, 8)
    for images in (torch.zeros(1, 1, 16, 16), torch.zeros(1, 3, 12, 16)):
        with pytest.raises(ValueError, match="encodes"):
            vae.encode(images)
    with pytest.raises(ValueError, match="decodes"):
        vae.decode(torch.zeros(1, 3, 2, 2))


def test_the_kl_is_that_of_torchs_distributions():
    mean, logvar = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    expected = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum((1, 2, 3))
    torch.testing.assert_close(Posterior(mean, logvar).kl(), expected)


def test_it_learns_and_one_seed_gives_one_result():
    """Ramps of two numbers a colour are far below what 4 x 64 latents hold: their spread is 41 grey levels, and 150
    steps came within 10.3; 16 leaves room for other machines. A KL that is all of the loss closes the latents."""
    images = ramps(32, 16)
    before = images.float().std()

    def trained(steps, kl_weight):
        torch.manual_seed(0)
        vae = SmallVAE(4, 4)
        train_vae(vae, images, steps=steps, kl_weight=kl_weight, seed=3, batch=8)
        return vae

    vae = trained(150, 1e-4)
    found = reconstruction(vae, images)
    assert before > 40 and found.rmse < 16, found
    x = images.float() / 127.5 - 1
    error = (vae.decode(vae.encode(x)).detach().clamp(-1, 1) - x) * 127.5
    assert found.rmse == pytest.approx(float(error.square().mean().sqrt()), rel=1e-4)
    assert found.psnr == pytest.approx(20 * math.log10(255 / found.rmse))
    assert reconstruction(trained(40, 1e3), images).kl < 0.01 * found.kl
    state, again = trained(3, 1e-3).state_dict(), trained(3, 1e-3).state_dict()
    assert all(torch.equal(state[name], again[name]) for name in state)


def test_crops_are_squares_of_their_image():
    images = torch.arange(2 * 5 * 7, dtype=torch.uint8).reshape(2, 1, 5, 7)
    seen = set()
    for step in range(30):
        crops = ((random_crops(images, 4, 1, step) + 1) * 127.5).round().to(torch.uint8)
        for image, crop in zip(images, crops, strict=True):
            y, x = divmod(int(crop[0, 0, 0]) - int(image[0, 0, 0]), 7)
            assert torch.equal(crop, image[:, y : y + 4, x : x + 4])
            seen.add((y, x))
    assert seen == {(y, x) for y in range(2) for x in range(4)}


def test_area_averages():
    images = torch.randn(2, 3, 12, 12)
    by_hand = torch.stack([images[..., i::4, j::4] for i in range(4) for j in range(4)]).mean(0)
    torch.testing.assert_close(Downsample(4).patch_features(images), by_hand)
    assert area_average(images, 12) is images
    for size in (5, 24):
        with pytest.raises(ValueError, match="whole blocks"):
            area_average(images, size)
    with pytest.raises(ValueError, match="does not divide"):
        Downsample(5).patch_features(images)


def test_small_networks_see_larger_images_averaged():
    large = torch.randn(2, 3, 24, 24)
    vit = SmallViT(classes=3, image_channels=3, image_size=8).eval()
    cnn = SmallCNN(classes=3, image_channels=3, image_size=8).eval()
    assert vit.patch_features(large).shape == (2, 64, 4, 4)
    for network in (vit, cnn):
        assert torch.equal(network(large), network(area_average(large, 8)))
