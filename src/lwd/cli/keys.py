"""`lwd keys`: every key of a config with its type, default and meaning, read from the settings classes themselves."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import typer

from lwd.console import one_line_errors, show
from lwd.errors import UserError

HEAD = """# Every key

What `lwd keys` prints; `lwd keys train` prints one section, `lwd keys train.schedule` a part. A value of a file is
overridden on the command line as `train.steps=500`. `lwd keys --schema` prints a JSON schema, by which editors complete
and check a config (VS Code's YAML extension: a first line `# yaml-language-server: $schema=lwd.schema.json`).
"""
_WIDTH = 100
_NO_BOUND = 10**8
"""What is only there to keep an absurd value out is not shown."""


@dataclass(frozen=True)
class Key:
    """One key: its dotted name, the values it takes, its default (None: it must be given) and what it means."""

    name: str
    values: str
    default: str | None
    meaning: str


def keys(
    prefix: Annotated[str, typer.Argument(help="A section or key, as train or train.schedule; default: all")] = "",
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a config instead")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/config.md instead")] = False,
) -> None:
    """Every key of a config: what it takes, its default and what it means."""
    with one_line_errors():
        if schema:
            show(json.dumps(json_schema(), indent=1))
            return
        found = [key for key in all_keys() if not prefix or f"{key.name}.".startswith(f"{prefix}.")]
        if not found:
            raise UserError(f"lwd keys {prefix}: no such section or key; `lwd keys` lists them all")
        show(page(found) if markdown else "\n".join(_on_screen(key) for key in found))


def page(found: list[Key]) -> str:
    """The keys as a Markdown page, a table for each section."""
    parts, section = [HEAD], ""
    for key in found:
        first, dot, _ = key.name.partition(".")
        here = first if dot else "A run"
        if here != section:
            section = here
            parts.append(f"\n## {section}\n\n| key | values | default | meaning |\n|---|---|---|---|")
        default = "must be given" if key.default is None else f"`{key.default}`"
        cells = (f"`{key.name}`", key.values, default, key.meaning)
        parts.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(parts)


def _on_screen(key: Key) -> str:
    default = "must be given" if key.default is None else f"default {key.default}"
    meaning = textwrap.fill(key.meaning, _WIDTH, initial_indent="    ", subsequent_indent="    ")
    return f"{key.name}: {key.values}; {default}\n{meaning}".rstrip()


def all_keys() -> list[Key]:
    """All keys of a config, those outside of the sections first."""
    schema = json_schema()
    found = list(_keys_of(schema, schema["$defs"], ""))
    return [key for key in found if "." not in key.name] + [key for key in found if "." in key.name]


@cache
def json_schema() -> dict[str, Any]:
    """The JSON schema of a config, with the settings' docstrings as descriptions."""
    from lwd.stages.experiment import Experiment

    schema = Experiment.model_json_schema()
    schema["title"] = "lwd config"
    schema["properties"]["base"] = {"type": "string", "description": "Another config file that this one changes."}
    definitions = schema["$defs"]
    for model in set(_models_in(Experiment)):
        properties = (schema if model is Experiment else definitions[model.__name__])["properties"]
        for name, meaning in _docstrings(model).items():
            if name in properties:
                properties[name]["description"] = meaning
        if hasattr(model, "_short_form"):
            definitions[model.__name__] = {"anyOf": [{"type": "string"}, definitions[model.__name__]]}
    return schema


def _models_in(kind: type) -> Iterator[type]:
    """A settings class and those below it."""
    from lwd.config import fields_of, sections_in

    yield kind
    for annotation in fields_of(kind).values():
        for below in sections_in(annotation):
            yield from _models_in(below)


def _docstrings(model: type) -> dict[str, str]:
    """What stands below the attributes of a class and its bases, by name."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not base.__module__.startswith("lwd."):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(meaning))):
                    found[name] = " ".join(meaning.split())
    return found


def _keys_of(schema: dict[str, Any], definitions: dict[str, Any], prefix: str) -> Iterator[Key]:
    for name, value in schema["properties"].items():
        parts = list(_alternatives(value, definitions))
        below = [part for part in parts if "properties" in part]
        described = value.get("description") or next((part.get("description", "") for part in below), "")
        default = None if name in schema.get("required", ()) else _written(value.get("default", "none"))
        if prefix or not below:
            yield Key(f"{prefix}{name}", " or ".join(map(_values, parts)), default, " ".join(described.split()))
        for part in below:
            yield from _keys_of(part, definitions, f"{prefix}{name}.")


def _alternatives(value: dict[str, Any], definitions: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a key takes, each as a schema of its own; where that is a list, its entries' with ``list`` set."""
    if "$ref" in value:
        yield from _alternatives(definitions[value["$ref"].rsplit("/", 1)[1]], definitions)
    elif inner := value.get("anyOf"):
        for part in inner:
            yield from _alternatives(part, definitions)
    elif isinstance(entries := value.get("items"), dict):
        yield from ({**part, "list": True} for part in _alternatives(entries, definitions))
    elif isinstance(entries := value.get("additionalProperties"), dict):
        yield from (
            {**part, "by_name": True} for part in _alternatives(entries, definitions) if "properties" not in part
        )
    else:
        yield value


def _values(part: dict[str, Any]) -> str:
    if "list" in part or "by_name" in part:
        inner = _values({key: value for key, value in part.items() if key not in ("list", "by_name")})
        return f"list of {inner}" if "list" in part else f"by name: {inner}"
    if choices := part.get("enum") or ([part["const"]] if "const" in part else None):
        return " | ".join(map(str, choices))
    kind = {"null": "null", "object": "a section" if "properties" in part else "a mapping", "array": "a list"}
    named = "path" if part.get("format") == "path" else str(part.get("type", "any value"))
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [
        f"{sign} {_written(part[key])}" for key, sign in signs.items() if key in part and abs(part[key]) < _NO_BOUND
    ]
    return " ".join([kind.get(named, named), ", ".join(bounds)]).strip()


def _written(value: Any) -> str:
    return "a section" if isinstance(value, dict) and value else json.dumps(value).strip('"')
