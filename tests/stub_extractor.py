"""A network of the same protocol as Inception's, in microseconds: random projections of small images."""

from __future__ import annotations

import torch
from torch import Tensor

from lwd.errors import UserError

WIDTHS = {"pool": 6, "spatial": 4, "logits": 5}


class StubExtractor:
    """Stands in for `InceptionExtractor`; counts the images that it has seen."""

    name = "inception"
    widths = WIDTHS
    seen = 0
    published = True

    def __init__(self, weights=None, device=None, download=False, allow_other=False, section="evaluate") -> None:
        if not self.published and not allow_other:
            raise UserError("not the published Inception weights")
        self.identity = {"name": "inception", "weights_sha256": "stub", "published_weights": self.published}

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        type(self).seen += len(images)
        pixels = images.flatten(1).float() / 127.5 - 1
        generator = torch.Generator().manual_seed(0)
        parts = {}
        for kind, width in WIDTHS.items():
            parts[kind] = pixels @ torch.randn(pixels.shape[1], width, generator=generator) / 4
        return parts
