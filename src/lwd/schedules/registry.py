"""The kinds of curves: which class a schedule.json names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lwd.errors import UserError

if TYPE_CHECKING:
    from lwd.schedules.curve import Curve

_CLASSES: dict[str, type[Curve]] = {}


def register(cls: type[Curve]) -> None:
    """Make ``cls`` the curve of its ``kind``; raises ValueError where another class has it.

    A class of the same module and name takes the place of the earlier one: a cell of a notebook may be run again.
    """
    known = _CLASSES.get(cls.kind)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(
            f"curve kind {cls.kind!r} of {cls.__module__}.{cls.__qualname__} is taken by "
            f"{known.__module__}.{known.__qualname__}; choose another kind"
        )
    _CLASSES[cls.kind] = cls


def curve_class(kind: object, where: str) -> type[Curve]:
    """The curve of ``kind``; raises UserError, beginning with ``where``, for one that no imported class has."""
    if not isinstance(kind, str) or kind not in _CLASSES:
        raise UserError(
            f"{where}: unknown curve kind {kind!r}; known: {', '.join(sorted(_CLASSES))} "
            f"(import the module that defines a curve of your own first)"
        )
    return _CLASSES[kind]
