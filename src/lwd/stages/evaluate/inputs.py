"""One side of a comparison, as a path names it: images, saved features, or stored statistics, opened and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lwd.data.samples import INFO
from lwd.errors import UserError
from lwd.evaluation.extraction import extract
from lwd.evaluation.extractors import Extractor
from lwd.evaluation.features import FeatureSet
from lwd.evaluation.images import ArrayImages, Images, PictureImages, sampled_images
from lwd.files import checksum
from lwd.images.npz import IMAGES, read_npz, verify_npz
from lwd.metrics.moments import Gaussian
from lwd.runtime.processes import Processes

_ADM = {"pool": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
"""The names of Inception's statistics in ADM's reference batches, and the first pair in pytorch-fid's files."""

_ROUNDING = 2.0**-24


@dataclass(frozen=True)
class Material:
    """Images, or saved features, or Inception's stored ``gaussians`` with or without images."""

    path: Path
    images: Images | None = None
    saved: FeatureSet | None = None
    gaussians: Mapping[str, Gaussian] = field(default_factory=dict)

    @property
    def count(self) -> int | None:
        """Of the images, or of saved features; None for statistics alone."""
        if self.images is not None:
            return len(self.images)
        saved = () if self.saved is None else self.saved.features.values()
        return next(map(len, saved), None)

    def features(self, extractor: Extractor, batch: int, processes: Processes, cache: Path | None) -> FeatureSet | None:
        """What is known under this network, on the main process (None on the others).

        Raises UserError where what is stored belongs to another network.
        """
        if self.saved is not None:
            _check_identity(self.path, self.saved.extractor, extractor.identity)
            return self.saved
        inception = self.gaussians if extractor.name == "inception" else {}
        for kind, (mean, covariance) in inception.items():
            width = extractor.widths[kind]
            if mean.shape != (width,) or covariance.shape != (width, width):
                raise UserError(
                    f"{self.path}: {_ADM[kind][0]} is of {tuple(mean.shape)}, {_ADM[kind][1]} of "
                    f"{tuple(covariance.shape)}: statistics of other features than Inception's {width} ({kind})"
                )
        if self.images is None:
            if not inception:
                raise UserError(f"{self.path}: holds statistics of Inception's features and no images, so no others")
            if not processes.is_main:
                return None
            verify_npz(self.path)
            source = {"path": str(self.path), "count": None, "sha256": checksum(self.path)}
            return FeatureSet(extractor.identity, source, {}, stored=inception)
        found = extract(self.images, extractor, batch, processes, cache)
        return found.with_stored(inception) if found is not None else None


def open_material(path: Path) -> Material:
    """Raises UserError for what is missing, damaged, or nothing that can be compared."""
    if path.is_dir():
        return Material(path, sampled_images(path, read_npz) if (path / INFO).is_file() else PictureImages(path))
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder")
    if path.suffix == ".safetensors":
        return Material(path, saved=FeatureSet.load(path))
    if path.suffix != ".npz":
        raise UserError(f"{path}: neither a folder, an .npz, nor .safetensors of `lwd evaluate`")
    arrays: dict[str, NDArray[Any]] = read_npz(path)
    gaussians = {
        kind: (_statistic(path, mean, arrays[mean], 1), _covariance(path, covariance, arrays[covariance]))
        for kind, (mean, covariance) in _ADM.items()
        if mean in arrays and covariance in arrays
    }
    if IMAGES not in arrays and not gaussians:
        raise UserError(f"{path}: has neither images (arr_0) nor statistics (mu, sigma); it holds {sorted(arrays)}")
    return Material(path, ArrayImages(path, arrays) if IMAGES in arrays else None, gaussians=gaussians)


def _statistic(path: Path, name: str, array: NDArray[Any], dimensions: int) -> torch.Tensor:
    if array.dtype.kind != "f" or array.ndim != dimensions or not bool(np.isfinite(array).all()):
        raise UserError(f"{path}: {name} is {array.dtype} {array.shape}; must be finite, of {dimensions} dimension(s)")
    return torch.from_numpy(array.astype(np.float64))


def _covariance(path: Path, name: str, array: NDArray[Any]) -> torch.Tensor:
    """Symmetric and without negative variances, up to what float32 leaves of one."""
    covariance = _statistic(path, name, array, 2)
    size = len(covariance)
    noise = size * _ROUNDING * covariance.abs().max()
    if covariance.shape != (size, size) or bool((covariance - covariance.T).abs().max() > noise):
        raise UserError(f"{path}: {name} is not symmetric, so no covariance; make the statistics again")
    eye = torch.eye(size, dtype=torch.float64)
    if covariance.any() and bool(torch.linalg.cholesky_ex(covariance + noise * eye).info):
        raise UserError(f"{path}: {name} has negative eigenvalues, so is no covariance; make the statistics again")
    return (covariance + covariance.T) / 2


def _check_identity(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for key in {**wanted, **stored}:
        if stored.get(key) != wanted.get(key):
            raise UserError(
                f"{path}: holds features of another network: {key} is {stored.get(key)!r}, needed {wanted.get(key)!r}"
            )
