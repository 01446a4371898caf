"""`lwd data`: nothing but argument parsing and calls."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lwd.console import USER_ERROR, complain, one_line_errors, show

app = typer.Typer(no_args_is_help=True, help="Look after data: fetch in and check.")


@app.command("fashion-mnist")
def _fashion_mnist(
    folder: Annotated[Path, typer.Option("--from", help="The folder that holds the four IDX files, plain or .gz")],
) -> None:
    """Check Fashion-MNIST's four IDX files and keep a copy in the user's cache, for `encode.dataset=fashion-mnist`.

    Not needed where Debian's package `dataset-fashion-mnist` is installed: that is found as it is.
    """
    from lwd.datasets.fashion import import_files

    with one_line_errors():
        show(f"wrote {import_files(folder)}; name it with encode.dataset=fashion-mnist")


@app.command("stats")
def data_stats(
    path: Annotated[Path, typer.Argument(help="A data set folder, or one folder of shards")],
) -> None:
    """Write the channel statistics that shards lack, as SFD's may; what is there already stays.

    In a data set with a folder `train` all folders get those of its shards.
    """
    from lwd.data.folder_stats import complete

    with one_line_errors():
        made = complete(path)
        show("\n".join(f"wrote {file}" for file in made) or f"{path}: all statistics are there already")


@app.command("index")
def data_index(
    path: Annotated[Path, typer.Argument(help="A data set folder: one that holds train, and perhaps heldout")],
) -> None:
    """List a data set's files and shards in it, so that `data.path` may be its URL once it lies elsewhere.

    `lwd encode` does so at its end.
    """
    from lwd.data.remote.listing import write_listing

    with one_line_errors():
        listing = write_listing(path)
        show("\n".join(f"wrote {file}" for file in listing.written))
        for link in listing.links:
            complain(f"{link}: left out, since it is a link; put the file itself there to have it listed")


@app.command("check")
def data_check(
    path: Annotated[Path, typer.Argument(help="A data set folder, or one folder of shards")],
    picture: Annotated[Path | None, typer.Option(help="Where to draw histograms; default: PATH/histograms.png")] = None,
) -> None:
    """Read every value of a data set's shards and list all that is wrong; exit code 2 if anything is."""
    from lwd.data.check import check
    from lwd.data.check_picture import save_histograms, table
    from lwd.files import check_place

    target = picture or path / "histograms.png"
    with one_line_errors():
        if picture is not None or path.is_dir():
            check_place(target)
        reports = check(path, show=sys.stderr.isatty())
        show(table(reports))
        if any(report.channels for report in reports):
            save_histograms(reports, target)
            show(f"histograms: {target}")
        problems = [problem for report in reports for problem in report.problems]
        for problem in problems:
            complain(problem)
        if problems:
            raise typer.Exit(USER_ERROR)
