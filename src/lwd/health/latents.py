"""A first look at the data: is it standardised, labelled, free of copies; one batch of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lwd.data.shards import Batch
from lwd.errors import UserError
from lwd.groups import Layout
from lwd.health.finding import Finding

MEAN_OFF, SCALE_OFF, ERRORS = 0.15, 0.2, 5.0
"""How far a channel's mean may be from 0, and its mean square from 1, beside so many standard errors of the batch's."""
UNEVEN = 20
"""A class with so many times the images of another is worth a word."""
NO_NORM = 1e-6


def standardised(x1: Tensor, layout: Layout, where: str = "") -> Iterator[Finding]:
    """A finding for each group of standardised latents x1 (B, C, ...): mean, deviation, and the channel farthest off.

    ``where`` is put behind the group's name, as for held-out latents, which training's statistics standardise.
    """
    for name, part in layout.split(x1).items():
        x = part.float().flatten(2) if part.ndim > 2 else part.float()[:, None]  # (B, C, L); flat: one channel
        by_mean, by_square = x.mean(dim=2), x.square().mean(dim=2)  # (B, C)
        off_mean, off_scale = _beyond(by_mean, 0.0, MEAN_OFF), _beyond(by_square, 1.0, SCALE_OFF)
        said = f"mean {float(x.mean()):.2f}, deviation {float(x.std(correction=0)):.2f}"
        for off, values, what in ((off_mean, by_mean, "mean"), (off_scale, by_square, "mean square")):
            if bool((off > 0).any()):
                channel = int(off.argmax())
                said += f"; {what} of channel {channel} is {float(values[:, channel].mean()):.2f}"
        yield Finding(f"{name}{where}", f"{said} (0 and 1)", not bool((off_mean > 0).any() or (off_scale > 0).any()))


def _beyond(values: Tensor, wanted: float, tolerance: float) -> Tensor:
    """How far the means over images of values (B, C) are beyond what is allowed of each channel, (C,)."""
    error = values.std(dim=0, correction=0) / len(values) ** 0.5
    beyond: Tensor = (values.mean(dim=0) - wanted).abs() - tolerance - ERRORS * error
    return beyond


def labelled(labels: Tensor, classes: int) -> Finding:
    """The histogram of all labels (N,), in a line."""
    counts = torch.bincount(labels, minlength=classes)
    least, most = int(counts.min()), int(counts.max())
    there = int((counts > 0).sum())
    said = f"{len(labels):,} images, {there:,} of {classes:,} classes, {least:,} to {most:,} images each"
    return Finding("labels", said, least > 0 and most <= UNEVEN * least)


def copies(x1: Tensor, images: Tensor) -> Finding:
    """Pictures that occur twice among latents x1 (B, C, ...) of the data's ``images`` (B,): the same bits."""
    first: dict[bytes, int] = {}
    twice = []
    for row, image in zip(x1.cpu(), images.tolist(), strict=True):
        if first.setdefault(row.numpy().tobytes(), image) != image:
            twice.append((first[row.numpy().tobytes()], image))
    said = f"none among {len(x1):,} images"
    if twice:
        said = f"{len(twice):,} among {len(x1):,} images, as {twice[0][0]} and {twice[0][1]}"
    return Finding("copies", said, not twice)


def aligned_to(features: Tensor) -> Finding:
    """The norms of REPA features (B, D, ...), at each position. Raises UserError where one is not finite."""
    norms = features.float()[..., None].flatten(2).norm(dim=1)  # (B, L)
    if not bool(torch.isfinite(norms).all()):
        raise UserError("the REPA features of the first batch are not finite; encode them again, or repa_weight=0")
    said = f"norm {float(norms.mean()):.3g}, from {float(norms.min()):.3g} to {float(norms.max()):.3g}"
    return Finding("REPA features", said, float(norms.min()) > NO_NORM)


def look_at(batch: Batch, images: Tensor, layout: Layout) -> list[Finding]:
    """All of this about one batch: the data's ``images`` (B,)."""
    findings = [*standardised(batch.x1, layout), copies(batch.x1, images)]
    return findings if batch.features is None else [*findings, aligned_to(batch.features)]
