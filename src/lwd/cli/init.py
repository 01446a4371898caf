"""`lwd init`: nothing but argument parsing and calls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lwd.cli.following import following
from lwd.console import one_line_errors, show


def init(
    folder: Annotated[Path, typer.Argument(help="Pictures: class subfolders, a labels.csv, or no labels at all")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to; default: the folder's name, .yaml, in the current folder")
    ] = None,
) -> None:
    """Look at a folder of pictures and write a commented config that fits them; nothing is ever replaced."""
    from lwd.stages.encode.starter import write_starter

    with one_line_errors():
        file, seen = write_starter(folder, out)
        show(f"{seen}\nwrote {file}\n{following('init', file)}")
