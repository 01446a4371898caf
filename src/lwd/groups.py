"""Named representation groups on the channel axis (paper, Section 3.1 and Eq. 3).

A composite latent ``z`` of shape (B, C, H, W) stacks its groups along C; a `Layout` is the ordered
list of them and the only place that knows which channels belong to whom.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """One representation: ``channels`` consecutive channels of the composite latent.

    ``weight`` is the paper's w_g (Eq. 33). ``key`` names the tensor in latent shards; where it is None,
    `lwd.data` uses its default for the name.
    """

    name: str
    channels: int
    weight: float = 1.0
    key: str | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"group name {self.name!r} is not an identifier (letters, digits, _)")
        if self.channels < 1:
            raise ValueError(f"group {self.name!r} has {self.channels} channels; it needs at least 1")
        if not self.weight > 0:
            raise ValueError(f"group {self.name!r} has weight {self.weight}; Eq. 33 needs a positive one")


class Layout:
    """The ordered groups of a composite latent.

    Raises ValueError where there is no group or a name occurs twice.
    """

    def __init__(self, groups: Iterable[Group | Mapping[str, Any]]) -> None:
        self.groups = tuple(g if isinstance(g, Group) else Group(**g) for g in groups)
        if not self.groups:
            raise ValueError("a layout needs at least one group")
        if len(set(self.names)) != len(self.groups):
            raise ValueError(f"group names must differ, got {list(self.names)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The groups' names in channel order."""
        return tuple(g.name for g in self.groups)

    @property
    def sizes(self) -> list[int]:
        """Channels of each group, in order."""
        return [g.channels for g in self.groups]

    @property
    def channels(self) -> int:
        """Channels of the composite latent."""
        return sum(self.sizes)

    @property
    def weights(self) -> list[float]:
        """w_g of each group, in order (Eq. 33)."""
        return [g.weight for g in self.groups]

    def split(self, z: Tensor) -> dict[str, Tensor]:
        """(B, C, ...) -> one view (B, C_g, ...) per name."""
        self._check_channels(z)
        return dict(zip(self.names, torch.split(z, self.sizes, dim=1), strict=True))

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        """One (B, C_g, ...) per name, in any order -> (B, C, ...)."""
        if set(parts) != set(self.names):
            raise ValueError(f"layout has groups {list(self.names)}, got {sorted(parts)}")
        z = torch.cat([parts[name] for name in self.names], dim=1)
        self._check_channels(z)
        return z

    def expand(self, values: Tensor) -> Tensor:
        """One value per group (B, G) -> the value of each channel's group (B, C, 1, 1), without a copy to the host."""
        if values.shape[-1] != len(self.groups):
            raise ValueError(f"layout has {len(self.groups)} groups, got values of shape {tuple(values.shape)}")
        columns = [values[:, g : g + 1].expand(-1, size) for g, size in enumerate(self.sizes)]
        return torch.cat(columns, dim=1)[:, :, None, None]

    def group_means(self, z: Tensor) -> Tensor:
        """Mean over each group's own entries, sample by sample: (B, C, H, W) -> (B, G) (the norm of Eq. 22)."""
        return torch.stack([part.flatten(1).mean(1) for part in self.split(z).values()], dim=1)

    def to_list(self) -> list[dict[str, Any]]:
        """Plain data for JSON and YAML; `Layout(list)` reads it back."""
        return [{k: v for k, v in vars(g).items() if v is not None} for g in self.groups]

    def _check_channels(self, z: Tensor) -> None:
        if z.shape[1] != self.channels:
            raise ValueError(f"layout {self} has {self.channels} channels, got a tensor of shape {tuple(z.shape)}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self.groups == other.groups

    def __hash__(self) -> int:
        return hash(self.groups)

    def __repr__(self) -> str:
        return "[" + ", ".join(f"{g.name}:{g.channels}" for g in self.groups) + "]"
