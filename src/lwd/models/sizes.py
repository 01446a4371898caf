"""Named sizes: "LightningDiT-XL/1" is size XL with patch 1. Ti and Mini are this project's, for tests and the CPU."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

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


def build_lightningdit(
    layout: Layout,
    shape: tuple[int, ...],
    num_classes: int,
    name: str,
    depth: int | None = None,
    width: int | None = None,
    heads: int | None = None,
    projector_width: int | None = None,
    repa_block: int = 2,
    feature_dim: int | None = None,
    time_order: Sequence[str] | None = None,
) -> LightningDiT:
    """The size ``name``, with whatever of it should differ. Raises UserError for latents that are no square images."""
    size, patch_size = parse_name(name)
    if layout.flat or len(shape) != 2 or shape[0] != shape[1]:
        axes = ", ".join(map(str, (layout.channels, *shape)))
        raise UserError(f"model.name: {name} is for latents (C, n, n), these are ({axes}); name a network of your own")
    if shape[0] % patch_size:
        raise UserError(f"model.name: {name}: patch size {patch_size} does not divide the latents' grid of {shape[0]}")
    try:
        return LightningDiT(
            layout,
            shape[0],
            num_classes,
            depth=depth or size.depth,
            width=width or size.width,
            heads=heads or size.heads,
            patch_size=patch_size,
            feature_dim=feature_dim,
            repa_block=repa_block,
            projector_width=projector_width or size.projector_width,
            time_order=time_order,
        )
    except ValueError as error:
        raise UserError(f"model: {error}") from error


def parse_name(name: str) -> tuple[Size, int]:
    """ "LightningDiT-XL/1" -> its size and patch size; raises UserError for an unknown name."""
    match = re.fullmatch(r"LightningDiT-(\w+)/(\d+)", name)
    if match is None or match[1] not in SIZES or int(match[2]) < 1:
        known = [f"LightningDiT-{size}/1" for size in SIZES]
        near = difflib.get_close_matches(name, known, n=1)
        sizes = f"sizes: {', '.join(SIZES)}; the number is the patch size; an own network reads module:attribute"
        hint = f"did you mean {near[0]!r}?" if near else sizes
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
    """A freshly initialised LightningDiT by name, e.g. ``create("LightningDiT-B/1", layout, 16, 1000)``."""
    return build_lightningdit(layout, (input_size, input_size), num_classes, name, feature_dim=feature_dim)
