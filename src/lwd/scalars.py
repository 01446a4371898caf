"""What passes for a number or a path in settings, wherever they are declared."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic_core import PydanticKnownError, core_schema

_URL = re.compile("([a-zA-Z][a-zA-Z0-9+.-]+):/+(?=.)")
"""Two letters at the least: one would be a drive of Windows."""
BIGGEST = 10**9
"""What a whole number may be at the most where its own setting names no bound: anything beyond is a slip."""


def only_numbers(schema: Any, resolve: Callable[[Any], Any]) -> Any:
    """A pydantic core schema whose numbers take neither true nor text, and whose whole numbers all have a bound.

    ``resolve`` finds what a reference in it stands for; dataclasses among those are changed in place.
    """
    if isinstance(schema, list | tuple):
        return type(schema)(only_numbers(part, resolve) for part in schema)
    if not isinstance(schema, dict) or _is_done(schema):
        return schema
    if schema.get("type") == "definition-ref":
        target = resolve(schema)
        if target["type"] == "dataclass":
            target["schema"] = only_numbers(target["schema"], resolve)
        return schema
    schema = {key: value if key == "metadata" else only_numbers(value, resolve) for key, value in schema.items()}
    kind = schema.get("type")
    if kind not in ("int", "float"):
        return schema
    if kind == "int" and not {"le", "lt"} & schema.keys():
        schema["le"] = BIGGEST
    return core_schema.no_info_before_validator_function(_whole_number if kind == "int" else _number, schema)


def _is_done(schema: dict[str, Any]) -> bool:
    function = schema.get("function")
    return isinstance(function, dict) and function.get("function") in (_whole_number, _number)


def _whole_number(value: Any) -> Any:
    if isinstance(value, bool | str | bytes):
        raise PydanticKnownError("int_type")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool | str | bytes):
        raise PydanticKnownError("float_type")
    return value


def as_url(path: str) -> str | None:
    """The URL that text, or what `Path` makes of it with one slash less, stands for; None for a path."""
    found = _URL.match(path)
    if found is None:
        return None
    protocol = found[1].lower()
    return f"{protocol}:{'///' if protocol == 'file' else '//'}{path[found.end() :]}"


def at_home(path: str) -> str:
    """A path with ~ or ~user at its beginning replaced by that home folder; ValueError where there is none."""
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        raise ValueError(f"{path!r}: no such home folder is known; write the whole path") from None
