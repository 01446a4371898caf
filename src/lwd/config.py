"""Strict YAML <-> typed config. Each stage declares its settings, with their defaults, beside the code that uses them.

`Config` refuses unknown keys and wrong types; `load` reads a file and those that it builds on, applies
``key.sub=value`` overrides and turns every complaint into one line that says where and what to do.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from lwd.errors import UserError


class Config(BaseModel):
    """Base of every settings class: immutable, no unknown keys, defaults checked like everything else."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def _one_folder(name: str) -> str:
    if not re.fullmatch(r"[\w+=-][\w.+= -]*", name) or name.endswith(" "):
        raise ValueError(
            f"{name!r} is not the name of one folder: letters, digits, '_', '-', '+', '=', '.', and spaces"
        )
    return name


FolderName = Annotated[str, AfterValidator(_one_folder)]
"""What a run's folder is called: one plain component of a path."""


C = TypeVar("C", bound=Config)

BASE = "base"
"""The key by which a file names another one, relative to itself, that it changes section by section."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, refusing a key that is given twice, and with two things of YAML 1.2: 1e-4 is a number, and
    no, yes, on and off are text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own class attribute
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping node -> a dict."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"key {repeated[0]!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, quoting text that `_Loader` would read as a number."""


_FLOAT = (
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\d[\d_]*)(\.\d*)?([eE][-+]?\d+)$|^[-+]?\d[\d_]*\.\d*$|^[-+]?\.\d+([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf)$"
    ),
    list("-+0123456789."),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(*_FLOAT)
_Dumper.add_implicit_resolver(*_FLOAT)


def load(kind: type[C], file: Path | None, overrides: Iterable[str] = ()) -> C:
    """A ``kind`` from a YAML file (None: all defaults) and ``key.sub=value`` overrides, values in YAML syntax.

    A file with a key ``base: OTHER.yaml`` is a list of changes to that file, whose path is relative to the first; see
    `merge`. Raises UserError for a missing, malformed or circular file, an unknown key (naming the nearest one) or a
    wrong value, and names the file, of several, that the value is in.
    """
    try:
        data, sources = _read_layers(file) if file is not None else ({}, {})
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


def parse(kind: type[C], data: Mapping[str, Any], where: str, sources: Mapping[str, str] | None = None) -> C:
    """Validate plain data; raises UserError with one line that starts with ``where``, or with what ``sources`` has for
    the key or the nearest one above it."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        above = [".".join(map(str, first["loc"][:depth])) for depth in range(len(first["loc"]), 0, -1)]
        place = next((sources[name] for name in above if name in sources), where) if sources else where
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UserError(f"{place}: {_explain(kind, first, key)}{more}") from error


def dump(config: Config) -> str:
    """The resolved config as YAML, which `load` reads back to an equal config."""
    return yaml.dump(
        config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120
    )


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
    data = _read_yaml(file)
    if BASE not in data:
        return data, dict.fromkeys(_leaves(data), str(file))
    name = data.pop(BASE)
    if not isinstance(name, str):
        raise UserError(f"{file}: {BASE}: must be the path of another config file, got {name!r}")
    lower, sources = _read_layers(file.parent / name, chain)
    return merge(lower, data), sources | dict.fromkeys(_leaves(data), str(file))


def _leaves(data: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of all values that are not sections."""
    for key, value in data.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _read_yaml(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"{file}: no such config file")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a text file in UTF-8 ({error})") from error
    data = _parse(text, str(file))
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"{file}: a config is a mapping of keys to values, got {type(data).__name__}")
    return data


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date
        raise UserError(f"{where}: not valid YAML ({' '.join(str(error).split())})") from error


def _set(data: dict[str, Any], path: list[str], value: Any, override: str) -> None:
    for part in path[:-1]:
        if data.get(part) is None:
            data[part] = {}
        child = data[part]
        if not isinstance(child, dict):
            raise UserError(f"override {override!r}: {part!r} is not a section")
        data = child
    data[path[-1]] = value


def _explain(kind: type[Config], error: Mapping[str, Any], key: str) -> str:
    if error["type"] == "extra_forbidden":
        known = _keys_beside(kind, error["loc"])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {key!r}; {hint}"
    message = error["msg"].removeprefix("Value error, ")
    return (
        f"{key + ': ' if key else ''}{message[0].lower() + message[1:]}, got {error['input']!r}"
        if error["type"] not in ("value_error", "missing")
        else f"{key + ': ' if key else ''}{message}"
    )


def _keys_beside(kind: type[Config], loc: tuple[int | str, ...]) -> list[str]:
    """The keys that the section holding ``loc`` knows."""
    section: type[BaseModel] = kind
    for part in loc[:-1]:
        field = section.model_fields.get(str(part))
        if field is None:
            continue
        models = [a for a in (field.annotation, *_all_args(field.annotation)) if _is_model(a)]
        if models:
            section = models[0]
    return [name for name, field in section.model_fields.items() if not field.exclude]


def _all_args(annotation: Any) -> list[Any]:
    return [inner for arg in get_args(annotation) for inner in (arg, *_all_args(arg))]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
