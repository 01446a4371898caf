"""Named sizes: "LightningDiT-XL/1" is size XL with patch 1. Ti and Mini are this project's, for tests and the CPU."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from pydantic import PositiveInt, field_validator

from lwd.config import Config
from lwd.errors import UserError
from lwd.groups import Layout
from lwd.models.lightningdit import LightningDiT


@dataclass(frozen=True)
class Size:
    """Depth, width and heads of a transformer, and the hidden width of its REPA projector."""

    depth: int
    width: int
    heads: int
    projector_width: int = 2048


SIZES = {
    "Mini": Size(2, 32, 2, 64),
    "Ti": Size(4, 64, 2, 128),
    "S": Size(12, 384, 6),
    "B": Size(12, 768, 12),
    "L": Size(24, 1024, 16),
    "XL": Size(28, 1152, 16),
    "1p0B": Size(24, 1536, 24),
    "1p6B": Size(28, 1792, 28),
}


class ModelConfig(Config):
    """Which network: a name, and whatever of its size should differ."""

    name: str = "LightningDiT-XL/1"
    num_classes: PositiveInt = 1000
    depth: PositiveInt | None = None
    width: PositiveInt | None = None
    heads: PositiveInt | None = None
    projector_width: PositiveInt | None = None
    repa_block: PositiveInt = 2

    @field_validator("name")
    @classmethod
    def _name_is_known(cls, name: str) -> str:
        parse_name(name)
        return name

    def build(self, layout: Layout, input_size: int, feature_dim: int | None = None) -> LightningDiT:
        """The network, freshly initialised from torch's global generator."""
        size, patch_size = parse_name(self.name)
        try:
            return LightningDiT(
                layout,
                input_size,
                self.num_classes,
                depth=self.depth or size.depth,
                width=self.width or size.width,
                heads=self.heads or size.heads,
                patch_size=patch_size,
                feature_dim=feature_dim,
                repa_block=self.repa_block,
                projector_width=self.projector_width or size.projector_width,
            )
        except ValueError as error:
            raise UserError(f"model: {error}") from error


def parse_name(name: str) -> tuple[Size, int]:
    """ "LightningDiT-XL/1" -> its size and patch size; raises UserError for an unknown name."""
    match = re.fullmatch(r"LightningDiT-(\w+)/(\d+)", name)
    if match is None or match[1] not in SIZES or int(match[2]) < 1:
        known = [f"LightningDiT-{size}/1" for size in SIZES]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"sizes: {', '.join(SIZES)}; the number is the patch size"
        raise UserError(f"model.name: unknown model {name!r}; {hint}")
    return SIZES[match[1]], int(match[2])


def name_of(model: LightningDiT) -> str:
    """The name that `create` knows a network by, or its depth and width in place of an unknown size."""
    depth, width, heads = len(model.blocks), model.pos_embed.shape[-1], model.heads
    known = [name for name, size in SIZES.items() if (size.depth, size.width, size.heads) == (depth, width, heads)]
    return f"LightningDiT-{known[0] if known else f'{depth}x{width}'}/{model.patch_size}"


def create(
    name: str, layout: Layout, input_size: int, num_classes: int, feature_dim: int | None = None
) -> LightningDiT:
    """A freshly initialised network by name, e.g. ``create("LightningDiT-B/1", layout, 16, 1000)``."""
    return ModelConfig(name=name, num_classes=num_classes).build(layout, input_size, feature_dim)
