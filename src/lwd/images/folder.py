"""Images in a folder: class subfolders as torchvision's ImageFolder orders them, or files with a labels.csv."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from lwd.errors import UserError
from lwd.images.decode import EXTENSIONS, Picture, is_image, open_picture
from lwd.images.source import LABELS_CSV, ImageSource, parse_label
from lwd.images.walk import SEEN, LeftOut, Walk, walk

HEADER = ["file", "label"]


class FolderSource(ImageSource):
    """The images below a folder.

    Where the folder holds `LABELS_CSV`, with the header "file,label", the images are its rows in their order: paths
    relative to the folder, and whole numbers or class names (sorted, they are 0..K-1). Otherwise each subfolder is a
    class, its sorted position the label; within a class the files of a sorted recursive walk. This is the order of
    torchvision 0.2 and later, so index and label of ImageNet's images are everyone's. `lwd.images.walk` has the
    rule for all else.
    """

    def __init__(self, path: Path, labelled: bool = True) -> None:
        """List the folder; not ``labelled``, every image in it and below is of class 0.

        Raises UserError for images without label, labels without image, classes without any, and for no image at all.
        """
        self.path = path
        found = walk(path, is_image)
        has_table = labelled and (path / LABELS_CSV).is_file()
        if labelled:
            files, labels, classes = _from_csv(path, found) if has_table else _from_subfolders(path, found)
        else:
            files, labels, classes = found.files, [0] * len(found.files), None
            if not files:
                raise UserError(f"{path}: {_what_is_there(files, found.left_out)}; it needs some")
        left_out = [one for one in found.left_out if not (one.name == LABELS_CSV and has_table)]
        super().__init__(files, labels, classes, left_out)

    def read(self, index: int) -> Picture:
        """See `ImageSource.read`."""
        name = self.name(index)
        return open_picture(self.path / name, name)

    def sizes(self) -> NDArray[np.int64]:
        """See `ImageSource.sizes`; one look at each file's entry."""
        return np.array([(self.path / self.name(i)).stat().st_size for i in range(len(self))], dtype=np.int64)


def _from_subfolders(path: Path, found: Walk) -> tuple[list[str], list[int], list[str]]:
    """Files, labels and class names."""
    of_class: dict[str, list[str]] = {name: [] for name in found.folders}
    stray = [name for name in found.files if "/" not in name]
    for name in found.files:
        if "/" in name:
            of_class[name.partition("/")[0]].append(name)
    if not of_class:
        here = _what_is_there(stray, found.left_out)
        raise UserError(
            f"{path}: {here}; images go in class subfolders or need {LABELS_CSV}"
            + "; encode.unlabelled=true does without" * bool(stray)
        )
    if stray:
        raise UserError(f"{path / stray[0]}: lies beside the class subfolders, so it has no label; move it")
    if doubled := [one.name for one in found.left_out if one.reason == SEEN and one.name.count("/") == 1]:
        raise UserError(f"{path / doubled[0]}: a class subfolder that is {SEEN}; remove it")
    if empty := [name for name, files in of_class.items() if not files]:
        raise UserError(f"{path / empty[0]}: class subfolder without images ({', '.join(EXTENSIONS)}); remove it")
    labels = [label for label, files in enumerate(of_class.values()) for _ in files]
    return [name for files in of_class.values() for name in files], labels, list(of_class)


def _what_is_there(images: list[str], left_out: list[LeftOut]) -> str:
    if images:
        return f"{len(images)} images without labels"
    if any(name.endswith(".tar") for name, _ in left_out):
        return "holds tar files (for those, give the pattern FOLDER/*.tar)"
    return "no images" if left_out else "an empty folder"


def _from_csv(path: Path, found: Walk) -> tuple[list[str], list[int], list[str] | None]:
    """Files, labels, and class names where the labels are names."""
    table = path / LABELS_CSV
    rows = list(_rows(table))
    lines: dict[str, int] = {}
    for line, file, _ in rows:
        if file in lines:
            raise UserError(f"{table}: line {line}: {file!r} already stands in line {lines[file]}")
        lines[file] = line
    present = set(found.files)
    for line, file, _ in rows:
        if file not in present and not _is_there(path / file):
            raise UserError(f"{table}: line {line}: no file {file!r} in {path}")
    if missing := sorted(present - lines.keys()):
        raise UserError(f"{table}: no row for {missing[0]!r}" + (f" and {len(missing) - 1} more" * (len(missing) > 1)))
    if not rows:
        raise UserError(f"{table}: no rows")
    labels, classes = _labels(table, rows)
    return list(lines), labels, classes


def _is_there(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # a name that is too long for any file
        return False


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
