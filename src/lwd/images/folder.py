"""Images in a folder: class subfolders as torchvision's ImageFolder orders them, or files with a labels.csv."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lwd.errors import UserError
from lwd.images.source import EXTENSIONS, ImageSource, decode, is_image, parse_label, unreadable

LABELS_CSV = "labels.csv"
HEADER = ["file", "label"]


class FolderSource(ImageSource):
    """The images below a folder.

    Where the folder holds `LABELS_CSV`, with the header "file,label", the images are its rows in their order: paths
    relative to the folder, and whole numbers or class names (sorted, they are 0..K-1). Otherwise each subfolder is a
    class, its sorted position the label; within a class the files of a sorted recursive walk. This is the order of
    torchvision 0.2 and later, so index and label of ImageNet's images are everyone's.
    """

    def __init__(self, path: Path) -> None:
        """List the folder. Raises UserError for images without label, labels without image and classes without any."""
        self.path = path
        files, labels, classes = _from_csv(path) if (path / LABELS_CSV).is_file() else _from_subfolders(path)
        super().__init__(files, labels, classes)

    def read(self, index: int) -> Image.Image:
        """See `ImageSource.read`."""
        name = self.name(index)
        try:
            file = (self.path / name).open("rb")
        except OSError as error:
            raise unreadable(error, name) from error
        with file:
            return decode(file, name)

    def sizes(self) -> NDArray[np.int64]:
        """See `ImageSource.sizes`; one look at each file's entry."""
        return np.array([(self.path / self.name(i)).stat().st_size for i in range(len(self))], dtype=np.int64)


def _from_subfolders(path: Path) -> tuple[list[str], list[int], list[str]]:
    """Files, labels and class names."""
    with os.scandir(path) as entries:
        content = sorted((entry.name, entry.is_dir()) for entry in entries)
    classes = [name for name, is_folder in content if is_folder]
    stray = [name for name, is_folder in content if not is_folder and is_image(name)]
    if not classes:
        raise UserError(f"{path}: {_what_is_there(content, stray)}; images go in class subfolders or need {LABELS_CSV}")
    if stray:
        raise UserError(f"{path / stray[0]}: lies beside the class subfolders, so it has no label; move it")
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        mine = list(_walk(path, name))
        if not mine:
            raise UserError(f"{path / name}: class subfolder without images ({', '.join(EXTENSIONS)}); remove it")
        files += mine
        labels += [label] * len(mine)
    return files, labels, classes


def _what_is_there(content: list[tuple[str, bool]], images: list[str]) -> str:
    if not content:
        return "an empty folder"
    if any(name.endswith(".tar") for name, _ in content):
        return "holds tar files (for those, give the pattern FOLDER/*.tar)"
    return f"{len(images)} images without labels" if images else "no images"


def _walk(root: Path, start: str = "") -> Iterator[str]:
    """The images below ``root``/``start``, relative to ``root``, in torchvision's order."""

    def fail(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be listed ({error.strerror})") from error

    for folder, _, names in sorted(os.walk(root / start, onerror=fail, followlinks=True)):
        inside = Path(folder).relative_to(root)
        prefix = "" if inside == Path() else f"{inside}/"
        yield from (prefix + name for name in sorted(names) if is_image(name))


def _from_csv(path: Path) -> tuple[list[str], list[int], list[str] | None]:
    """Files, labels, and class names where the labels are names."""
    table = path / LABELS_CSV
    rows = list(_rows(table))
    lines: dict[str, int] = {}
    for line, file, _ in rows:
        if file in lines:
            raise UserError(f"{table}: line {line}: {file!r} already stands in line {lines[file]}")
        lines[file] = line
    present = set(_walk(path))
    for line, file, _ in rows:
        if file not in present and not (path / file).is_file():
            raise UserError(f"{table}: line {line}: no file {file!r} in {path}")
    if missing := sorted(present - lines.keys()):
        raise UserError(f"{table}: no row for {missing[0]!r}" + (f" and {len(missing) - 1} more" * (len(missing) > 1)))
    if not rows:
        raise UserError(f"{table}: no rows")
    labels, classes = _labels(table, rows)
    return list(lines), labels, classes


def _rows(table: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, file and label of each row; raises UserError for a table of another form."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            if (header := next(reader, None)) != HEADER:
                raise UserError(f"{table}: the header must read file,label; it reads {','.join(header or [])[:80]!r}")
            for row in reader:
                if not row:
                    continue
                where = f"{table}: line {reader.line_num}"
                if len(row) != len(HEADER) or not all(cell.strip() for cell in row):
                    raise UserError(f"{where}: a row is file,label; got {','.join(row)[:80]!r}")
                name = PurePosixPath(row[0])
                if name.is_absolute() or ".." in name.parts:
                    raise UserError(f"{where}: {row[0]!r} must be a path inside {table.parent}")
                yield reader.line_num, str(name), row[1].strip()
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table}: not a CSV file in UTF-8 ({error})") from error


def _labels(table: Path, rows: list[tuple[int, str, str]]) -> tuple[list[int], list[str] | None]:
    """Labels as they stand, or the places of class names in sorted order; a mixture is refused."""
    numeric = [_is_number(label) for _, _, label in rows]
    if numeric[0]:
        return [parse_label(label, f"{table}: line {line}") for line, _, label in rows], None
    if any(numeric):
        line, _, label = rows[numeric.index(True)]
        raise UserError(f"{table}: line {line}: label {label!r} is a number, but line {rows[0][0]} has a class name")
    classes = sorted({label for _, _, label in rows})
    place = {name: i for i, name in enumerate(classes)}
    return [place[label] for _, _, label in rows], classes


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
