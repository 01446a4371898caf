"""Per-channel statistics of a shard folder, in SFD's files: ``<key>_stats.pt`` holding mean and std.

They have as many axes as the latents, all of length 1 but the channels': (1, C, 1, 1) for images.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lwd.data.format import shard_key
from lwd.errors import UserError
from lwd.groups import Layout
from lwd.runtime.untrusted import save_foreign

_SPLITS = ("train", "heldout")
"""Folders of a data set."""


def channel_stats(chunks: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (1, C, 1, ...) over all samples and positions of latents (N, C, ...), streamed.

    Accumulated in float64 around the first chunk's mean, so that a large mean does not eat the variance.
    Raises ValueError where there is no chunk, UserError for a value that is not finite.
    """
    count, shift, total, square = 0, None, None, None
    for number, chunk in enumerate(chunks):
        if not len(chunk):
            continue
        if (bad := first_not_finite(chunk)) is not None:
            raise UserError(f"latents: chunk {number}, image {bad[0]}, channel {bad[1]} is not finite")
        x = chunk.double()
        everywhere = (0, *range(2, x.ndim))
        shift = x.mean(everywhere, keepdim=True) if shift is None else shift
        centred = x - shift
        s, q = centred.sum(everywhere, keepdim=True), centred.square().sum(everywhere, keepdim=True)
        total, square = (s, q) if total is None or square is None else (total + s, square + q)
        count += x.numel() // x.shape[1]
    if shift is None or total is None or square is None:
        raise ValueError("no latents to take statistics of")
    mean = total / count
    std = (square / count - mean.square()).clamp(min=0).sqrt()
    return (shift + mean).float(), std.float()


def first_not_finite(x: Tensor) -> tuple[int, int] | None:
    """(row, channel) of the first value of x (N, C, ...) that is NaN or infinite, None where all are finite."""
    if bool(torch.isfinite(x.sum(dtype=torch.float32))):  # one pass; a term that is not finite makes the sum so
        return None
    bad = (~torch.isfinite(x))[..., None].flatten(2).any(2).nonzero()
    return (int(bad[0, 0]), int(bad[0, 1])) if len(bad) else None


def stats_path(folder: Path, key: str) -> Path:
    """The path of the statistics of the tensors under ``key``."""
    return folder / f"{key}_stats.pt"


def save_stats(path: Path, mean: Tensor, std: Tensor) -> None:
    """Write one statistics file atomically."""
    save_foreign(path, {"mean": mean, "std": std})


def load_stats(path: Path, channels: int, axes: int = 2) -> tuple[Tensor, Tensor]:
    """Read one statistics file of latents (N, C, ...) with so many trailing ``axes``: mean and std (1, C, 1, ...).

    Raises UserError where it is missing, malformed, of another width, not finite, or where a channel is constant.
    """
    if not path.is_file():
        data = path.parent.parent if path.parent.name in _SPLITS else path.parent
        raise UserError(
            f"{path}: missing; `lwd encode` writes it beside its shards, `lwd data stats {data}` beside others"
        )
    try:
        data = torch.load(path, weights_only=True, map_location="cpu")
        mean, std = data["mean"].float(), data["std"].float()
    except Exception as error:  # torch.load raises whatever its unpickler meets, with advice to trust the file
        raise UserError(f"{path}: not a statistics file with tensors 'mean' and 'std' and nothing else") from error
    wanted = (1, channels, *[1] * axes)
    if mean.shape != wanted or std.shape != wanted:
        raise UserError(f"{path}: mean {tuple(mean.shape)} and std {tuple(std.shape)} should be {wanted}")
    if not bool(torch.isfinite(mean).all() and torch.isfinite(std).all()):
        raise UserError(f"{path}: statistics are not finite; encode the latents again")
    if bool((std <= 0).any()):
        raise UserError(
            f"{path}: channel {int((std.flatten() <= 0).int().argmax())} is constant (standard deviation 0)"
        )
    return mean, std


@dataclass(frozen=True)
class Statistics:
    """By which composite latents are standardised: mean and std (1, C, 1, ...) of each channel; of a flat layout
    (1, D), its channels' at each position."""

    mean: Tensor
    std: Tensor

    @classmethod
    def load(cls, folder: Path, layout: Layout, axes: int = 2) -> Statistics:
        """From the files of a split's ``folder``, for latents (N, C, ...) with so many trailing ``axes`` (of a flat
        layout each group has its own). Raises UserError as `load_stats` does."""
        stats = []
        for group in layout.groups:
            shape = (1,) * axes if group.shape is None else group.shape
            pair = load_stats(stats_path(folder, shard_key(group)), group.channels, len(shape))
            stats.append([x.expand(1, group.channels, *shape).flatten(1) for x in pair] if layout.flat else pair)
        mean, std = (torch.cat(parts, dim=1) for parts in zip(*stats, strict=True))
        return cls(mean, std)

    def destandardise(self, x: Tensor) -> Tensor:
        """Standardised latents (B, C, ...) -> the encoders' own scale."""
        return torch.addcmul(self.mean.to(x.device), x, self.std.to(x.device))
