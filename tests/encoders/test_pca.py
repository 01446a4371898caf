import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

import lwd.encoders.pca
from lwd.encoders.pca import PatchPCA
from lwd.errors import UserError
from lwd.runtime.checkpoint import save_tensors


@pytest.fixture(scope="module")
def features():
    """Correlated features (N, D, h, w) with well separated variances and a mean far from zero."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0] * torch.tensor([3.0, 2.0, 1.5, 1.0, 0.5, 0.1])
    return torch.einsum("de,nehw->ndhw", mixing, torch.randn(50, 6, 3, 4, generator=generator)) + 7


def test_against_numpy_eigh(features):
    pca = PatchPCA(3).fit(features)
    samples = features.permute(0, 2, 3, 1).reshape(-1, 6).double().numpy()
    values, vectors = np.linalg.eigh(np.cov(samples.T))
    values, vectors = values[::-1], vectors[:, ::-1].T
    vectors = vectors * np.sign(vectors[np.arange(6), np.abs(vectors).argmax(axis=1)])[:, None]
    np.testing.assert_allclose(pca.mean, samples.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(pca.components, vectors[:3], atol=1e-6)
    np.testing.assert_allclose(pca.explained_variance_ratio, values[:3] / values.sum(), rtol=1e-5)
    expected = ((samples - samples.mean(axis=0)) @ vectors[:3].T).reshape(50, 3, 4, 3).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(pca.encode(features), expected, atol=1e-4)


def test_latents_are_centred_uncorrelated_and_shaped_like_the_grid(features):
    latents = PatchPCA(2).fit(features).encode(features)
    assert latents.shape == (50, 2, 3, 4) and latents.dtype == torch.float32
    flat = latents.movedim(1, 0).flatten(1)
    assert flat.mean(dim=1).abs().max() < 1e-5
    assert torch.corrcoef(flat)[0, 1].abs() < 1e-5


def test_fewer_channels_are_the_first_of_more(features):
    few, many = PatchPCA(1).fit(features), PatchPCA(6).fit(features)
    assert torch.equal(few.components, many.components[:1])
    assert float(many.explained_variance_ratio.sum()) == pytest.approx(1)


def test_sign_does_not_depend_on_the_order_of_the_samples(features):
    pca, reversed_ = PatchPCA(4).fit(features), PatchPCA(4).fit(features.flip(0))
    torch.testing.assert_close(pca.components, reversed_.components, atol=1e-6, rtol=0)


def test_file_round_trip(features, tmp_path):
    pca = PatchPCA(2).fit(features)
    pca.save(tmp_path / "pca.safetensors")
    again = PatchPCA.load(tmp_path / "pca.safetensors")
    assert again.channels == 2
    assert torch.equal(again.explained_variance_ratio, pca.explained_variance_ratio)
    assert torch.equal(again.encode(features, standardise=True), pca.encode(features, standardise=True))


def test_unfit_files(tmp_path):
    with pytest.raises(UserError, match="not a readable safetensors file"):
        PatchPCA.load(tmp_path / "none.safetensors")
    save_tensors(tmp_path / "other.safetensors", {"mean": torch.zeros(3)})
    with pytest.raises(UserError, match="'components' is missing"):
        PatchPCA.load(tmp_path / "other.safetensors")


def test_what_does_not_fit(features):
    with pytest.raises(ValueError, match="7 components"):
        PatchPCA(7).fit(features)
    with pytest.raises(ValueError, match="fitted on 6"):
        PatchPCA(2).fit(features).encode(features[:, :5])


@pytest.fixture(scope="module")
def drifting():
    """200 images of 96 channels whose variances fall off slowly, and whose mean and scale drift along the stream."""
    generator = torch.Generator().manual_seed(3)
    mixing = torch.linalg.qr(torch.randn(96, 96, generator=generator))[0] * 0.95 ** torch.arange(96)
    drift = torch.linspace(0.5, 1.5, 200)[:, None, None, None]
    centre = torch.randn(96, generator=generator)[:, None, None] * drift
    return torch.einsum("de,nehw->ndhw", mixing, torch.randn(200, 96, 3, 4, generator=generator)) * drift + centre


def angle(one, other):
    """The largest principal angle between two sets of components, in degrees."""
    return float(np.degrees(subspace_angles(one.components.T.numpy(), other.components.T.numpy()).max()))


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("channels", [1, 3, 16])
def test_a_stream_finds_the_exact_components(drifting, channels, batch):
    exact, stream = PatchPCA(channels).fit(drifting), PatchPCA(channels).fit_stream(drifting.split(batch))
    assert angle(exact, stream) < 0.02  # degrees; measured at most 0.0017
    torch.testing.assert_close(stream.mean, exact.mean, atol=1e-6, rtol=0)
    torch.testing.assert_close(stream.components @ stream.components.T, torch.eye(channels), atol=1e-6, rtol=0)
    for name in ("scale", "explained_variance_ratio"):
        torch.testing.assert_close(getattr(stream, name), getattr(exact, name), atol=0, rtol=1e-5)
    signs = (stream.components * exact.components).sum(1)
    assert (signs > 0).all()


def test_a_stream_that_keeps_every_component_is_exact(drifting):
    """From 48 of 96 channels on nothing is dropped: only rounding is left."""
    exact, stream = PatchPCA(48).fit(drifting), PatchPCA(48).fit_stream(drifting.split(9))
    assert angle(exact, stream) < 1e-3  # float32 components
    torch.testing.assert_close(stream.scale, exact.scale)


def test_oversampling_is_what_makes_it_so(drifting, monkeypatch):
    """Without it, IncrementalPCA is off by far more than the tolerance above."""
    monkeypatch.setattr(lwd.encoders.pca, "OVERSAMPLE", 0)
    assert angle(PatchPCA(16).fit(drifting), PatchPCA(16).fit_stream(drifting.split(7))) > 10  # 42


def test_scale_is_the_deviation_of_each_component(features):
    for pca in (PatchPCA(3).fit(features), PatchPCA(3).fit_stream(features.split(5))):
        latents = pca.encode(features).movedim(1, 0).flatten(1)
        torch.testing.assert_close(pca.scale, latents.std(dim=1), atol=0, rtol=1e-5)
        standardised = pca.encode(features, standardise=True).movedim(1, 0).flatten(1)
        torch.testing.assert_close(standardised.std(dim=1), torch.ones(3), atol=1e-5, rtol=0)


def test_decode_is_the_orthogonal_projection(features):
    pca = PatchPCA(2).fit(features)
    samples = features.movedim(1, -1).reshape(-1, 6).double().numpy()
    centred = samples - samples.mean(0)
    _, _, rows = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ rows[:2].T @ rows[:2] + samples.mean(0)
    found = pca.decode(pca.encode(features)).movedim(1, -1).reshape(-1, 6)
    np.testing.assert_allclose(found, expected, atol=1e-4)  # float32 around 7


def test_a_short_stream_is_fitted_at_once(features):
    stream, exact = PatchPCA(2).fit_stream([features[:1]]), PatchPCA(2).fit(features[:1])
    assert torch.equal(stream.components, exact.components) and torch.equal(stream.scale, exact.scale)


def test_streams_that_do_not_fit(features):
    with pytest.raises(ValueError, match="no features"):
        PatchPCA(2).fit_stream([])
    with pytest.raises(ValueError, match="batches of 6 and of 5 dimensions"):
        PatchPCA(2).fit_stream([features, features[:, :5]])
    with pytest.raises(ValueError, match="7 components in 6 dimensions"):
        PatchPCA(7).fit_stream(features.split(5))
    with pytest.raises(ValueError, match="5 components of 2 samples"):
        PatchPCA(5).fit_stream([features[:1, :, :1, :2]])
