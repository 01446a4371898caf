"""Strict YAML <-> typed config. Each stage declares its settings, with their defaults, beside the code that uses them.

`Config` refuses unknown keys and wrong types; `load` reads a file and those that it builds on, applies
``key.sub=value`` overrides and turns every complaint into one line that says where and what to do.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    field_validator,
)
from pydantic_core import CoreSchema

from lwd.errors import UserError
from lwd.scalars import as_url, at_home, only_numbers
from lwd.yaml12 import Dumper, Loader

SETTINGS = "config.yaml"
"""The name of the file, beside a result, with the settings that it was made under."""


class Config(BaseModel):
    """Base of every settings class: immutable, no unknown keys, defaults checked like everything else.

    No value of another kind passes for a number: neither true nor text. A path may begin with ~, the home folder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: CoreSchema = only_numbers(handler(source), handler.resolve_ref_schema)
        return schema

    def at_default(self, *keys: str) -> set[str]:
        """Those of ``keys`` that are at their defaults: left out of a recipe, they compare equal to what was written
        before they existed."""
        fields = type(self).model_fields
        return {key for key in keys if getattr(self, key) == fields[key].default}

    @field_validator("*")
    @classmethod
    def _paths_from_home(cls, value: Any) -> Any:
        return Path(_on_this_machine(at_home(str(value)))) if isinstance(value, Path) else value


def _on_this_machine(path: str) -> str:
    if (url := as_url(path)) is not None:
        raise ValueError(f"{url} is a URL, where a path of this machine is needed; data.path alone takes one")
    return path


PathText = Annotated[str, AfterValidator(at_home), AfterValidator(_on_this_machine)]
"""A setting that is a path among other things, such as a name on the Hub."""


def _one_folder(name: str) -> str:
    if not re.fullmatch(r"[\w+=-][\w.+= -]*", name) or name.endswith(" "):
        raise ValueError(
            f"{name!r} is not the name of one folder: letters, digits, '_', '-', '+', '=', '.', and spaces"
        )
    return name


def as_folder_name(text: str) -> str:
    """The valid name of one folder that is nearest to a text: what it may not hold becomes "-"."""
    name = re.sub(r"[^\w.+= -]", "-", text).lstrip(". ").rstrip(" ")
    return _one_folder(name or "-")


FolderName = Annotated[str, AfterValidator(_one_folder)]
"""What a run's folder is called: one plain component of a path."""


Batch = Annotated[int, Field(gt=0, le=2**20)]
Seed = Annotated[int, Field(ge=0, lt=2**62)]

C = TypeVar("C", bound=Config)

BASE = "base"
"""The key by which a file names another one, relative to itself, that it changes section by section."""


def load(
    kind: type[C],
    file: str | Path | None,
    overrides: Iterable[str] = (),
    start: Mapping[str, Any] | None = None,
) -> C:
    """A ``kind`` from a YAML file (None: ``start``, plain data, or all defaults) and ``key.sub=value`` overrides,
    values in YAML syntax.

    A file with a key ``base: OTHER.yaml`` is a list of changes to that file, whose path is relative to the first; see
    `merge`. Raises UserError for a missing, malformed or circular file, an unknown key (naming the nearest one) or a
    wrong value, and names the file, of several, that the value is in.
    """
    try:
        data, sources = _read_layers(Path(file)) if file is not None else (dict(start or {}), {})
    except RecursionError:
        raise UserError(f"{file}: its sections or bases are nested without end") from None
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise UserError(f"{override!r}: an override reads key.sub=value")
        _set(data, key.split("."), _parse(text, f"override {override!r}"), override)
        sources = {name: source for name, source in sources.items() if not name.startswith(f"{key}.")}
        sources[key] = f"override {override!r}"
    return parse(kind, data, str(file) if file is not None else "command line", sources)


def parse(kind: type[C], data: Mapping[str, Any] | str, where: str, sources: Mapping[str, str] | None = None) -> C:
    """Validate plain data, or the short form of a ``kind`` that has one; raises UserError with one line that starts
    with ``where``, or with what ``sources`` has for the key or the nearest one above it."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = _most_telling(error.errors())
        key = ".".join(str(part) for part in first["loc"] if _is_key(part))
        above = [".".join(map(str, first["loc"][:depth])) for depth in range(len(first["loc"]), 0, -1)]
        place = next((sources[name] for name in above if name in sources), where) if sources else where
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UserError(f"{place}: {_explain(kind, first, key)}{more}") from error


def based_on(file: Path) -> Path | None:
    """The file that a config file builds on; None where it stands alone. Raises UserError as `load` for that."""
    data = read_yaml(file)
    return file.parent / at_home(_base_name(file, data)) if BASE in data else None


def dump(config: Config) -> str:
    """The resolved config as YAML, which `load` reads back to an equal config."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=Dumper, sort_keys=False, default_flow_style=None, width=120)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``, section by section; a list is replaced whole."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _read_layers(file: Path, above: tuple[Path, ...] = ()) -> tuple[dict[str, Any], dict[str, str]]:
    """A file on top of its base: the data, and by dotted key the file that each value is from."""
    chain = (*above, file)
    if file.resolve() in [path.resolve() for path in above]:
        raise UserError(f"{file}: {BASE}: goes in a circle: {' -> '.join(map(str, chain))}")
    if above and not file.is_file():
        raise UserError(f"{above[-1]}: {BASE}: no config file {file} (a path relative to the file that names it)")
    data = read_yaml(file)
    if BASE not in data:
        return data, dict.fromkeys(_leaves(data), str(file))
    lower, sources = _read_layers(file.parent / at_home(_base_name(file, data)), chain)
    del data[BASE]
    return merge(lower, data), sources | dict.fromkeys(_leaves(data), str(file))


def _base_name(file: Path, data: Mapping[str, Any]) -> str:
    name = data[BASE]
    if not isinstance(name, str):
        raise UserError(f"{file}: {BASE}: must be the path of another config file, got {name!r}")
    return name


def _leaves(data: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of all values that are not sections."""
    for key, value in data.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file, nothing of an empty one; raises UserError where it is missing or holds another."""
    if not file.is_file():
        raise UserError(f"{file}: no such config file")
    return parse_yaml(file.read_bytes(), str(file))


def parse_yaml(content: bytes, where: str) -> dict[str, Any]:
    """The mapping in YAML, in UTF-8, nothing of an empty text; raises UserError, beginning with ``where``, for another
    thing."""
    try:
        data = _parse(content.decode("utf-8"), where)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not a text file in UTF-8 ({error})") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"{where}: a config is a mapping of keys to values, got {type(data).__name__}")
    return data


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise UserError(f"{where}: not valid YAML ({' '.join(str(error).split())})") from error
    except RecursionError:
        raise UserError(f"{where}: its sections are nested without end") from None


def _set(data: dict[str, Any], path: list[str], value: Any, override: str) -> None:
    for part in path[:-1]:
        if data.get(part) is None:
            data[part] = {}
        child = data[part]
        if not isinstance(child, dict):
            raise UserError(f"override {override!r}: {part!r} is not a section")
        data = child
    data[path[-1]] = value


_LONGEST = 200
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")  # the latter of dataclasses


def _most_telling(errors: Iterable[Any]) -> Any:
    """The first error; but for a key that is missing, an unknown one beside it, which may be that key misspelt; and
    where a value may be one of several things, what is wrong deepest inside."""
    first, *others = errors
    if first["type"] == "missing":
        beside = (one for one in others if one["type"] in _UNKNOWN and one["loc"][:-1] == first["loc"][:-1])
        return next(beside, first)
    above = next((depth for depth, part in enumerate(first["loc"]) if not _is_key(part)), None)
    if above is None:
        return first
    alternatives = [first, *(one for one in others if one["loc"][:above] == first["loc"][:above])]
    return max(alternatives, key=lambda one: sum(map(_is_key, one["loc"])))


def _is_key(part: int | str) -> bool:
    """Whether a part of an error's place is a key or an index, and not what pydantic calls one of several kinds."""
    return "[" not in str(part)


def _explain(kind: type[Config], error: Mapping[str, Any], key: str) -> str:
    if error["type"] in _UNKNOWN:
        known = _keys_beside(kind, error["loc"])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {key!r}; {hint}"
    message = error["msg"].removeprefix("Value error, ")
    return (
        f"{key + ': ' if key else ''}{message[0].lower() + message[1:]}, got {_short(error['input'])}"
        if error["type"] not in ("value_error", "missing")
        else f"{key + ': ' if key else ''}{message}"
    )


def _short(value: Any) -> str:
    """A value as a line shows it, which may be a section or thousands of digits."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _keys_beside(kind: type[Config], loc: tuple[int | str, ...]) -> list[str]:
    """The keys that the section holding ``loc`` knows."""
    section: Any = kind
    for part in loc[:-1]:
        if sections := sections_in(fields_of(section).get(str(part))):
            section = sections[0]
    return list(fields_of(section))


def sections_in(annotation: Any) -> list[Any]:
    """The settings classes and dataclasses that a type is made of, at any depth."""
    own = [annotation] if fields_of(annotation) else []
    return own + [section for inner in get_args(annotation) for section in sections_in(inner)]


def fields_of(section: Any) -> Mapping[str, Any]:
    """The types of the fields of a settings class or dataclass, by name; of anything else none."""
    if isinstance(section, type) and issubclass(section, BaseModel):
        return {name: field.annotation for name, field in section.model_fields.items() if not field.exclude}
    if isinstance(section, type) and dataclasses.is_dataclass(section):
        return {field.name: field.type for field in dataclasses.fields(section)}
    return {}
