import numpy as np
import pytest
import torch

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
    assert torch.equal(again.encode(features), pca.encode(features))


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
