"""Semantic latents by principal components of patch features (the paper's DINO-PCA and CLIP-PCA, Table 2)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.files import atomic_path
from lwd.runtime.checkpoint import load_tensors, save_tensors

if TYPE_CHECKING:  # a second to import, which every stage would wait for
    from sklearn.decomposition import PCA, IncrementalPCA

OVERSAMPLE = 48
"""How many components beside the k `PatchPCA.fit_stream` carries along: what a batch drops is lost for later ones."""


class PatchPCA:
    """The leading ``channels`` principal components of patch features, one projection shared by all positions.

    After `fit` or `fit_stream`: ``mean`` (D,), ``components`` (k, D) with orthonormal rows, ``scale`` (k,), the
    components' standard deviations over the data fitted to, and ``explained_variance_ratio`` (k,), all float32.
    Each component's sign is such that its entry of largest magnitude is positive (scikit-learn's ``svd_flip``).
    """

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.mean = torch.empty(0)
        self.components = torch.empty(channels, 0)
        self.scale = torch.empty(0)
        self.explained_variance_ratio = torch.empty(0)

    def fit(self, features: Tensor) -> PatchPCA:
        """Fit on features (N, D, h, w), each of the N h w positions being one sample; returns itself.

        Raises ValueError where k exceeds D or the number of samples.
        """
        return self._fit_at_once(_samples(features))

    def fit_stream(self, batches: Iterable[Tensor]) -> PatchPCA:
        """Fit on batches of features (N, D, h, w) in one pass, holding about one batch in memory; returns itself.

        scikit-learn's IncrementalPCA on k + `OVERSAMPLE` components, of which k are kept at the end: the mean is exact,
        the components nearly so (docs/semvae.md). The same batches in the same order give the same result; a short
        stream is fitted as by `fit`. Raises ValueError as `fit` does, for an empty stream, and for batches that differ
        in D.
        """
        from sklearn.decomposition import IncrementalPCA

        incremental: IncrementalPCA | None = None
        pending: Tensor | None = None
        for batch in batches:
            new = _samples(batch)
            if pending is not None and new.shape[1] != pending.shape[1]:
                raise ValueError(f"batches of {pending.shape[1]} and of {new.shape[1]} dimensions in one stream")
            pending = new if pending is None else torch.cat([pending, new])
            if not 1 <= self.channels <= pending.shape[1]:
                raise ValueError(f"{self.channels} components in {pending.shape[1]} dimensions")
            rank = min(self.channels + OVERSAMPLE, pending.shape[1])
            if len(pending) >= 2 * rank:  # partial_fit needs at least ``rank`` samples: keep so many for the last one
                incremental = incremental or IncrementalPCA(rank)
                incremental.partial_fit(pending[:-rank].numpy())
                pending = pending[-rank:].clone()
        if pending is None:
            raise ValueError("no features to fit on")
        if incremental is None:
            return self._fit_at_once(pending)
        return self._take(incremental.partial_fit(pending.numpy()))

    def _fit_at_once(self, samples: Tensor) -> PatchPCA:
        from sklearn.decomposition import PCA

        if not 1 <= self.channels <= min(samples.shape):
            raise ValueError(
                f"{self.channels} components of {samples.shape[0]} samples in {samples.shape[1]} dimensions"
            )
        return self._take(PCA(self.channels, svd_solver="covariance_eigh").fit(samples.numpy()))

    def _take(self, pca: PCA | IncrementalPCA) -> PatchPCA:
        """Keep the first k components of a fitted estimator."""
        k = self.channels
        self.mean = torch.from_numpy(pca.mean_).float()
        self.components = torch.from_numpy(pca.components_[:k]).float().contiguous()
        self.scale = torch.from_numpy(pca.explained_variance_[:k]).sqrt().float()
        self.explained_variance_ratio = torch.from_numpy(pca.explained_variance_ratio_[:k]).float()
        return self

    def encode(self, features: Tensor, standardise: bool = False) -> Tensor:
        """Features (N, D, h, w) -> latents (N, k, h, w), float32; with ``standardise`` divided by ``scale``.

        Not divided by default: shards are standardised by their own statistics when they are read. Raises ValueError
        for another D than was fitted.
        """
        if features.shape[1] != len(self.mean):
            raise ValueError(f"fitted on {len(self.mean)} dimensions, got features of shape {tuple(features.shape)}")
        mean, components = self.mean.to(features.device), self.components.to(features.device)
        latents = torch.einsum("kd,ndhw->nkhw", components, features.float() - mean[:, None, None])
        return latents / self.scale.to(features.device)[:, None, None] if standardise else latents

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, k, h, w) as `encode` gives them, not standardised -> the nearest features (N, D, h, w)."""
        mean, components = self.mean.to(latents.device), self.components.to(latents.device)
        return torch.einsum("kd,nkhw->ndhw", components, latents) + mean[:, None, None]

    def save(self, path: str | Path) -> None:
        """Write ``mean``, ``components``, ``scale`` and ``explained_variance_ratio`` as one safetensors file."""
        with atomic_path(Path(path)) as temporary:
            save_tensors(temporary, {name: getattr(self, name) for name in _TENSORS})

    @classmethod
    def load(cls, path: str | Path) -> PatchPCA:
        """Read what `save` wrote; raises UserError for a missing, damaged or foreign file."""
        tensors = load_tensors(Path(path))
        if missing := [name for name in _TENSORS if name not in tensors]:
            raise UserError(f"{path}: not a PCA of patch features; {missing[0]!r} is missing")
        pca = cls(len(tensors["components"]))
        for name in _TENSORS:
            setattr(pca, name, tensors[name])
        return pca


_TENSORS = ("mean", "components", "scale", "explained_variance_ratio")


def _samples(features: Tensor) -> Tensor:
    """Features (N, D, h, w) -> (N h w, D) float64, on the CPU."""
    return features.detach().movedim(1, -1).flatten(0, -2).double().cpu()
