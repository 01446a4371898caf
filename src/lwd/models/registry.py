"""Networks by name: those that register themselves, and functions named by a dotted path, ``module:attribute``."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from lwd.errors import UserError

Builder = Callable[..., nn.Module]
"""``build(layout=..., shape=..., num_classes=..., **settings)``; with ``feature_dim``, too, for REPA features."""

B = TypeVar("B", bound=Builder)

BUILDERS: dict[str, Builder] = {}


def register(name: str) -> Callable[[B], B]:
    """Make a function known as the network ``name``, so that ``model.name`` finds it: ``register("unet")(build)``.

    Raises ValueError for a name that is taken, or that could be a dotted path.
    """
    if ":" in name or name in BUILDERS:
        raise ValueError(f"network {name!r}: {'a registered name has no colon' if ':' in name else 'is taken'}")

    def add(build: B) -> B:
        BUILDERS[name] = build
        return build

    return add


def is_path(name: str) -> bool:
    """Whether a name reads ``module:attribute``; raises ValueError where it has a colon and does not."""
    if ":" not in name:
        return False
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", name):
        raise ValueError(f"{name!r} should read module:attribute, as in my_package.networks:build")
    return True


def find_builder(name: str) -> Builder:
    """The function registered as ``name``, or the one that the path leads to, for which its module is imported.

    Modules are looked for where Python looks, and last in the current directory. Raises UserError where there is none.
    """
    if name in BUILDERS:
        return BUILDERS[name]
    module_name, _, attribute = name.partition(":")
    found = import_own(module_name, f"model.name: {name!r}")
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"model.name: {name!r}: {module_name} has no {attribute!r}{hint}")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"model.name: {name!r}: is no function, but {type(found).__name__}; name one that builds it")
    build: Builder = found
    return build


def import_own(module: str, where: str) -> Any:
    """Import a module of the user's; raises UserError, beginning with ``where``, where it is missing or no Python."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:  # `lwd` has no place of its own there, `python -m lwd` has
        sys.path.append(here)
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise UserError(
                f"{where}: no module {error.name!r} is installed or in {here}; "
                "run from the folder that holds it, or set PYTHONPATH"
            ) from error
        raise UserError(f"{where}: {module} needs {error.name!r}, which is not installed") from error
    except SyntaxError as error:
        raise UserError(f"{where}: {error.filename}, line {error.lineno}: {error.msg}") from error


def check_arguments(
    name: str, build: Builder, reserved: Iterable[str], given: Iterable[str], settings: Iterable[str]
) -> None:
    """Raise UserError for the first setting that ``build`` does not take, or that it needs and that is missing.

    ``given``: what the builder gets beside the user's settings, which may be none of those ``reserved``.
    """
    given, reserved, settings = set(given), set(reserved), list(settings)
    if taken := [key for key in settings if key in reserved]:
        raise UserError(f"model.{taken[0]}: comes from the data and the config's other keys; leave it out")
    try:
        parameters = signature(build).parameters
    except ValueError:  # some built-in types do not say
        return
    kinds = Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY
    named = {key for key, parameter in parameters.items() if parameter.kind in kinds}
    if all(p.kind is not Parameter.VAR_KEYWORD for p in parameters.values()):
        if missing := [key for key in sorted(given) if key not in named]:
            hint = "; set train.repa_weight=0, or let it" if missing[0] == "feature_dim" else "; it must"
            raise UserError(f"model.name: {name!r} takes no {missing[0]!r}{hint}")
        if unknown := [key for key in settings if key not in named]:
            own = sorted(named - reserved)
            near = difflib.get_close_matches(unknown[0], own, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(own) or 'none'}"
            raise UserError(f"model.{unknown[0]}: no setting of {name!r}; {hint}")
    needed = [key for key in named if parameters[key].default is Parameter.empty]
    if missing := [key for key in sorted(needed) if key not in given and key not in settings]:
        raise UserError(f"model.{missing[0]}: {name!r} needs this setting")
