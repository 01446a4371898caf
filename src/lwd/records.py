"""What JSON files hold, as typed records: one model for each format, and one line for whatever does not fit it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import ConfigDict, Field

from lwd.config import Config, parse
from lwd.errors import UserError
from lwd.files import read_json

Size = Annotated[int, Field(gt=0, le=2**16)]
"""Of a network: a width, a depth, a number of channels."""


class Record(Config):
    """Base of what a file holds; keys that a model does not name are kept as they are, a later version may write more.

    ``what`` the file is, and the ``remedy`` where it is none, both in words.
    """

    model_config = ConfigDict(extra="allow")

    what: ClassVar[str]
    remedy: ClassVar[str]


R = TypeVar("R", bound=Record)


def read_record(path: Path, kind: type[R]) -> R:
    """The ``kind`` in a JSON file. Raises UserError where it is missing, no JSON, or something else."""
    return as_record(read_json(path), kind, str(path))


def read_records(path: Path, kind: type[R]) -> list[R]:
    """A list of them."""
    data = read_json(path)
    if not isinstance(data, list):
        raise UserError(f"{path}: not {kind.what} ({_kind_of(data)}, no list); {kind.remedy}")
    return [as_record(one, kind, f"{path}: [{number}]") for number, one in enumerate(data)]


def read_mapping(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """A JSON object of any content, to be compared or shown. Raises UserError for anything else."""
    data = read_json(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}: not {what} ({_kind_of(data)}, no mapping); {remedy}")
    return data


def as_record(data: Any, kind: type[R], where: str) -> R:
    """Plain data as a ``kind``; raises UserError, beginning with ``where``, for the first key that does not fit."""
    if not isinstance(data, dict):
        raise UserError(f"{where}: not {kind.what} ({_kind_of(data)}, no mapping); {kind.remedy}")
    try:
        return parse(kind, data, f"{where}: not {kind.what}")
    except UserError as error:
        raise UserError(f"{error}; {kind.remedy}") from error


def _kind_of(data: Any) -> str:
    kinds = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(data), "a number")
