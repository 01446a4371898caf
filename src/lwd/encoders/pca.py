"""Semantic latents by principal components of patch features (the paper's DINO-PCA and CLIP-PCA, Table 2)."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.decomposition import PCA
from torch import Tensor

from lwd.errors import UserError
from lwd.files import atomic_path
from lwd.runtime.checkpoint import load_tensors, save_tensors


class PatchPCA:
    """The leading ``channels`` principal components of patch features, one projection shared by all positions.

    After `fit`: ``mean`` (D,), ``components`` (k, D) with orthonormal rows, ``explained_variance_ratio`` (k,), float32.
    Each component's sign is such that its entry of largest magnitude is positive (scikit-learn's ``svd_flip``).
    """

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.mean = torch.empty(0)
        self.components = torch.empty(channels, 0)
        self.explained_variance_ratio = torch.empty(0)

    def fit(self, features: Tensor) -> PatchPCA:
        """Fit on features (N, D, h, w), each of the N h w positions being one sample; returns itself.

        Raises ValueError where k exceeds D or the number of samples.
        """
        samples = features.detach().movedim(1, -1).flatten(0, -2).double().cpu()
        if not 1 <= self.channels <= min(samples.shape):
            raise ValueError(
                f"{self.channels} components of {samples.shape[0]} samples in {samples.shape[1]} dimensions"
            )
        pca = PCA(self.channels, svd_solver="covariance_eigh").fit(samples.numpy())
        self.mean = torch.from_numpy(pca.mean_).float()
        self.components = torch.from_numpy(pca.components_).float().contiguous()
        self.explained_variance_ratio = torch.from_numpy(pca.explained_variance_ratio_).float()
        return self

    def encode(self, features: Tensor) -> Tensor:
        """Features (N, D, h, w) -> latents (N, k, h, w), float32. Raises ValueError for another D than was fitted."""
        if features.shape[1] != len(self.mean):
            raise ValueError(f"fitted on {len(self.mean)} dimensions, got features of shape {tuple(features.shape)}")
        mean, components = self.mean.to(features.device), self.components.to(features.device)
        return torch.einsum("kd,ndhw->nkhw", components, features.float() - mean[:, None, None])

    def save(self, path: Path) -> None:
        """Write ``mean``, ``components`` and ``explained_variance_ratio`` as one safetensors file."""
        with atomic_path(path) as temporary:
            save_tensors(temporary, {name: getattr(self, name) for name in _TENSORS})

    @classmethod
    def load(cls, path: Path) -> PatchPCA:
        """Read what `save` wrote; raises UserError for a missing, damaged or foreign file."""
        tensors = load_tensors(path)
        if missing := [name for name in _TENSORS if name not in tensors]:
            raise UserError(f"{path}: not a PCA of patch features; {missing[0]!r} is missing")
        pca = cls(len(tensors["components"]))
        for name in _TENSORS:
            setattr(pca, name, tensors[name])
        return pca


_TENSORS = ("mean", "components", "explained_variance_ratio")
