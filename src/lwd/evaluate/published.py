"""The rows to reproduce: ImageNet at 256 pixels, 50 000 samples, as Learning When to Denoise prints them."""

from __future__ import annotations

from lwd.evaluate.table import Row

_UNGUIDED = {
    "SFD-XL": {"70K": 8.79, "120K": 6.22, "400K": 3.53, "1M": 2.82, "2M": 2.74, "4M": 2.54},
    "learned": {"70K": 6.89, "120K": 4.93, "400K": 2.87, "800K": 2.53, "1M": 2.37, "2M": 2.21, "3M": 2.14},
    "DINO-PCA, fixed offset": {"400K": 4.06},
    "DINO-PCA, learned": {"400K": 2.97},
    "CLIP-PCA, learned": {"400K": 4.54},
}
"""FID by steps. Tables 1 and 3; CLIP's 4.89 without a schedule is of another compression (VAE)."""

_GUIDED: dict[str, tuple[float, ...]] = {
    "SFD-XL, 80 epochs": (1.30, 3.87, 233.4, 0.78, 0.64),
    "SFD-XL, 800 epochs": (1.06,),
    "SFD-XXL, 800 epochs": (1.04,),
    "learned, 80 epochs": (1.14, 3.79, 248.4, 0.78, 0.71),
    "learned, 200 epochs": (1.05, 3.79, 273.0, 0.78, 0.72),
    "learned, 600 epochs": (1.02, 3.78, 270.8, 0.78, 0.66),
}
"""With AutoGuidance: FID, sFID, Inception Score, precision, recall. Table 2."""

_ORDER = ("fid", "sfid", "inception_score", "precision", "recall")


def published_rows() -> list[Row]:
    """Unguided, then guided."""
    rows = [
        Row(f"published: {name}, {steps}", {"fid": fid}) for name, by in _UNGUIDED.items() for steps, fid in by.items()
    ]
    return rows + [
        Row(f"published: {name}, AutoGuidance", dict(zip(_ORDER, values, strict=False)))
        for name, values in _GUIDED.items()
    ]
