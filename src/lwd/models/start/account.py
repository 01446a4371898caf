"""The account of a start: what became of every tensor of two networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Account:
    """Names of tensors: ``taken`` as they are, ``grown`` out of given ones, ``rebuilt`` for the grid, ``new`` as they
    were initialised, ``left`` behind. ``notes``: what of groups, classes and grid is behind that."""

    taken: tuple[str, ...] = ()
    grown: tuple[str, ...] = ()
    rebuilt: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        given: Mapping[str, Tensor],
        own: Mapping[str, Tensor],
        made: Mapping[str, Tensor],
        rebuilt: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> Account:
        """Compare what was ``given``, what a network had of its ``own`` and what was ``made`` of both for it."""
        taken = tuple(n for n in made if n in given and _same(made[n], given[n]))
        return cls(
            taken=taken,
            grown=tuple(name for name in made if name in given and name not in taken),
            rebuilt=rebuilt,
            new=tuple(name for name in own if name not in given),
            left=tuple(name for name in given if name not in own),
            notes=notes,
        )

    def to_json(self) -> dict[str, Any]:
        """All of it, for a file."""
        return {key: list(value) for key, value in asdict(self).items()}

    def __str__(self) -> str:
        kinds = [(field.name, getattr(self, field.name)) for field in fields(self)[1:-1]]
        words = [f"{len(self.taken)} tensors taken"]
        words += [
            f"{len(names)} {kind} ({names[0]}{', ...' if len(names) > 1 else ''})" for kind, names in kinds if names
        ]
        return "; ".join([", ".join(words), *self.notes])


def _same(made: Tensor, given: Tensor) -> bool:
    return made.shape == given.shape and torch.equal(made, given.to(made))
