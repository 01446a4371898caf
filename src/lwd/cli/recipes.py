"""`lwd recipes`: nothing but argument parsing and calls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lwd.console import one_line_errors, show


def _known() -> list[str]:
    from lwd.recipes import names

    return names()


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Of the recipe to copy, e.g. imagenet256/xl", autocompletion=_known)
    ] = None,
    file: Annotated[Path | None, typer.Argument(help="Where to; default: its name, in the current folder")] = None,
) -> None:
    """The configs that come with lwd: list them, or copy one, and what it builds on, to change it."""
    from lwd.recipes import copy, names, summary

    with one_line_errors():
        if name is None:
            width = max(map(len, names()))
            show("\n".join(f"{each:{width}}  {summary(each)}" for each in names()))
        else:
            show("\n".join(f"wrote {path}" for path in copy(name, file)))
