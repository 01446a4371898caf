"""A path in a config -> the image source that it names."""

from __future__ import annotations

from pathlib import Path

from lwd.errors import UserError
from lwd.images.folder import FolderSource
from lwd.images.source import ImageSource
from lwd.images.tar import TarSource


def open_source(path: str, train: ImageSource | None = None, labelled: bool = True) -> ImageSource:
    """A folder (class subfolders, or files with a labels.csv), or tar files: a path, a glob or a {000..123} range.

    Of a folder that is not ``labelled`` every image is of class 0. Raises UserError where there is nothing of the kind,
    where images and labels do not match, and for a class that the
    ``train`` images lack, whose class numbers are taken over.
    """
    source = _open(path, labelled)
    if train is not None:
        source.number_as(train, path)
    return source


def _open(path: str, labelled: bool) -> ImageSource:
    if Path(path).is_dir():
        return FolderSource(Path(path), labelled)
    if path.endswith(".tar"):
        if not labelled:
            raise UserError(f"{path}: encode.unlabelled is for a folder; images in tar files have labels")
        return TarSource(path)
    if Path(path).exists():
        raise UserError(f"{path}: neither a folder of images nor a .tar file")
    raise UserError(f"{path}: no such folder; images are a folder, or .tar files")
