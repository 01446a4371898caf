"""The recipes: configs that come with the package, to copy and change."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from lwd.config import based_on
from lwd.errors import UserError
from lwd.files import check_new_place, write_text

_FOLDER = Path(__file__).parent
_SUFFIX = ".yaml"


def names() -> list[str]:
    """What there is, as in "imagenet256/xl", sorted."""
    return sorted(file.relative_to(_FOLDER).with_suffix("").as_posix() for file in _FOLDER.rglob(f"*{_SUFFIX}"))


def recipe(name: str) -> Path:
    """The file of a recipe. Raises UserError for an unknown name."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names())}"
        raise UserError(f"{name}: no such recipe; {hint}")
    return _FOLDER / f"{name}{_SUFFIX}"


def summary(name: str) -> str:
    """The first sentence of a recipe's comment."""
    comment = re.match(r"(?:#.*\n)*", recipe(name).read_text(encoding="utf-8"))
    assert comment is not None
    text = " ".join(line.removeprefix("#").strip() for line in comment[0].splitlines())
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0]


def copy(name: str, target: Path | None = None) -> list[Path]:
    """Copy a recipe to ``target``, by default its name in the current folder, and beside it those that it builds on.

    Returns the new files, the recipe first; a base that is there already, unchanged, is left out. Raises UserError for
    an unknown name, and where any file would be replaced.
    """
    source = recipe(name)
    target = Path(source.name) if target is None else target
    content = {target / source.name if target.is_dir() else target: source}
    while (base := based_on(source)) is not None:
        source = base
        beside = next(iter(content)).parent / source.name
        if not (beside.is_file() and beside.read_bytes() == source.read_bytes()):
            content[beside] = source
    for path in content:
        check_new_place(path)
    for path, source in content.items():
        write_text(path, source.read_text(encoding="utf-8"))
    return list(content)
