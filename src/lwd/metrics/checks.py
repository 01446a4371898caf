"""Full float32 for measuring: neither TF32 nor bfloat16 nor autocast, whatever the caller has turned on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """In the block float32 products and convolutions keep 24 bits; the settings are put back afterwards."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def check_pair(reference: Tensor, samples: Tensor) -> None:
    """Raise ValueError unless both are (rows, D) with one D, at least two rows and finite values."""
    for name, features in (("reference", reference), ("samples", samples)):
        if features.ndim != 2 or not features.is_floating_point():
            raise ValueError(f"{name}: features must be real, (rows, D), got {features.dtype} {tuple(features.shape)}")
        if len(features) < 2:
            raise ValueError(f"{name}: needs at least 2 rows of features, got {len(features)}")
        finite = torch.isfinite(features).all(1)
        if not bool(finite.all()):
            raise ValueError(f"{name}: features are not finite in row {int(finite.logical_not().nonzero()[0])}")
    if reference.shape[1] != samples.shape[1]:
        widths = f"{reference.shape[1]} and {samples.shape[1]}"
        raise ValueError(f"reference and samples have features of different widths, {widths}: of different networks?")
    if reference.device != samples.device:
        raise ValueError(f"reference and samples lie on different devices, {reference.device} and {samples.device}")
