"""Named representation groups of a composite latent (paper, Section 3.1 and Eq. 3).

A `Layout` is the ordered list of the groups, and the only place that knows which entries belong to whom. Groups that
share one grid are stacked along the channel axis: ``z`` is (B, C, ...), with any number of trailing axes, none too.
Groups that each have a `Group.shape` are flattened and laid end to end: ``z`` is (B, D), and `Layout.split` gives each
group in its own shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """One representation: ``channels`` consecutive channels of the composite latent, or a tensor of its own shape.

    ``weight`` is the paper's w_g (Eq. 33). ``key`` names the tensor in latent shards; where it is None,
    `lwd.data` uses its default for the name. ``shape`` is the group's own grid, without batch and channels: (16, 16) an
    image, (256,) a sequence, () one token; None where all groups share the latent's grid. Raises ValueError for a
    name that is no identifier and for numbers out of range, TypeError for a name that is no text.
    """

    name: str
    """What the group is called: in schedules, logs and errors."""
    channels: int
    """How many of the latent's channels are its own."""
    weight: float = 1.0
    """w_g of Eq. 33, by which its loss counts."""
    key: str | None = None
    """Its tensor's name in the shards; null: SFD's for its two groups, else one of the group's name."""
    shape: tuple[int, ...] | None = None
    """Of its own grid, where that differs from the other groups'; null: the latent's."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"a group's name is text, got {self.name!r}")
        if not self.name.isidentifier():
            raise ValueError(f"group name {self.name!r} is not an identifier (letters, digits, _)")
        if self.channels < 1:
            raise ValueError(f"group {self.name!r} has {self.channels} channels; it needs at least 1")
        if not self.weight > 0:
            raise ValueError(f"group {self.name!r} has weight {self.weight}; Eq. 33 needs a positive one")
        if self.shape is not None:
            object.__setattr__(self, "shape", tuple(self.shape))  # JSON and YAML give lists
            if not all(isinstance(n, int) and n >= 1 for n in self.shape):
                raise ValueError(f"group {self.name!r} has shape {self.shape}; it needs whole numbers of at least 1")

    @property
    def size(self) -> int:
        """Number of entries along axis 1 of the composite latent: channels, times positions of a group with a shape."""
        return self.channels * math.prod(self.shape or ())

    def __str__(self) -> str:
        """Name, channels and, if it has one, shape: ``tex:32``, ``image:4@(16x16)``, ``token:768@()``."""
        grid = "" if self.shape is None else f"@({'x'.join(map(str, self.shape))})"
        return f"{self.name}:{self.channels}{grid}"


class Layout:
    """The ordered groups of a composite latent.

    Raises ValueError where there is no group, a name occurs twice, or some groups have a shape and others none.
    """

    def __init__(self, groups: Iterable[Group | Mapping[str, Any]]) -> None:
        self.groups = tuple(g if isinstance(g, Group) else Group(**g) for g in groups)
        if not self.groups:
            raise ValueError("a layout needs at least one group")
        if len(set(self.names)) != len(self.groups):
            raise ValueError(f"group names must differ, got {list(self.names)}")
        if len({g.shape is None for g in self.groups}) > 1:
            missing = [g.name for g in self.groups if g.shape is None]
            raise ValueError(f"groups {missing} have no shape and the others do; give every group one, or none")

    @property
    def names(self) -> tuple[str, ...]:
        """The groups' names in channel order."""
        return tuple(g.name for g in self.groups)

    @property
    def flat(self) -> bool:
        """Whether every group has its own shape, so that latents are (B, D)."""
        return self.groups[0].shape is not None

    @property
    def sizes(self) -> list[int]:
        """Number of entries of each group along axis 1, in order: channels, times positions in a flat layout."""
        return [g.size for g in self.groups]

    def entries(self, positions: int) -> list[int]:
        """Number of entries of each group in a latent (C, ...) whose further axes have so many ``positions``."""
        return [size * positions for size in self.sizes]

    @property
    def channels(self) -> int:
        """Length of the composite latent's axis 1: its channels C, or all its entries D in a flat layout."""
        return sum(self.sizes)

    @property
    def weights(self) -> list[float]:
        """The weight w_g of each group, in order (Eq. 33)."""
        return [g.weight for g in self.groups]

    def split(self, z: Tensor) -> dict[str, Tensor]:
        """Split a latent into its groups, as views by name: (B, C, ...) -> (B, C_g, ...).

        In a flat layout: (B, D) -> (B, C_g, *shape), with the group's own shape. Raises ValueError for another z.
        """
        self._check(z)
        parts = torch.split(z, self.sizes, dim=1)
        if self.flat:
            parts = tuple(p.view(len(p), *self._own_shape(g)) for g, p in zip(self.groups, parts, strict=True))
        return dict(zip(self.names, parts, strict=True))

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Put the groups that `split` gives together, in any order. Raises ValueError for other names or shapes."""
        if set(parts) != set(self.names):
            raise ValueError(f"layout has groups {list(self.names)}, got {sorted(parts)}")
        ordered = [parts[name] for name in self.names]
        if self.flat:
            for group, part in zip(self.groups, ordered, strict=True):
                if part.shape[1:] != self._own_shape(group):
                    raise ValueError(f"group {group} got a tensor of shape {tuple(part.shape)}")
            ordered = [part.flatten(1) for part in ordered]
        z = torch.cat(ordered, dim=1)
        self._check(z)
        return z

    def expand(self, values: Tensor, like: Tensor) -> Tensor:
        """Give each entry of a latent its group's value: (B, G) -> (B, C, 1, ...), of ``like``'s rank and dtype.

        The result broadcasts against ``like`` (B, C, ...), of which nothing else is used; no copy to the host.
        """
        if values.shape[-1] != len(self.groups):
            raise ValueError(f"layout has {len(self.groups)} groups, got values of shape {tuple(values.shape)}")
        columns = [values[:, g : g + 1].expand(-1, size) for g, size in enumerate(self.sizes)]
        return torch.cat(columns, dim=1).to(like.dtype)[(..., *[None] * (like.ndim - 2))]

    def group_means(self, z: Tensor) -> Tensor:
        """Mean over each group's own entries, sample by sample: (B, C, ...) -> (B, G) (the norm of Eq. 22)."""
        return torch.stack([part.flatten(1).mean(1) for part in self.split(z).values()], dim=1)

    def to_list(self) -> list[dict[str, Any]]:
        """Describe the groups as plain data for JSON and YAML; `Layout(list)` reads it back."""
        plain = [{k: v for k, v in vars(g).items() if v is not None} for g in self.groups]
        return [{k: list(v) if isinstance(v, tuple) else v for k, v in group.items()} for group in plain]

    @staticmethod
    def _own_shape(group: Group) -> tuple[int, ...]:
        return (group.channels, *(group.shape or ()))

    def _check(self, z: Tensor) -> None:
        if z.shape[1] != self.channels or (self.flat and z.ndim != 2):
            what = f"is flat, (B, {self.channels})" if self.flat else f"has {self.channels} channels"
            raise ValueError(f"layout {self} {what}, got a tensor of shape {tuple(z.shape)}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self.groups == other.groups

    def __hash__(self) -> int:
        return hash(self.groups)

    def __repr__(self) -> str:
        return "[" + ", ".join(map(str, self.groups)) + "]"
