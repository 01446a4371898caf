"""A smaller Fashion-MNIST at 16x16 and at 32x32, as prepared data sets: few enough for a CPU to show to a DINOv2.

python experiments/study/fashion.py --to runs
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lwd.datasets.builtin import load
from lwd.datasets.prepared import Images, Split, write_prepared
from lwd.errors import UserError
from lwd.images.sheets import to_uint8, to_unit

TRAIN = 8_000


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status. The first pictures of each split: the set's own order is a shuffled one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=Path("runs"), help="where the data sets go; default: runs")
    parser.add_argument("--count", type=int, default=TRAIN, help="training pictures; a quarter as many are held out")
    options = parser.parse_args(arguments)
    if not 40 <= options.count <= 10_000:
        parser.error("--count: 40 to 10 000")
    train, heldout = options.count, options.count // 4
    try:
        for name, target in (("fashion-mnist-16", "fashion-8k"), ("fashion-mnist", "fashion-32-8k")):
            (images, labels), (held, truth) = load(name, "train"), load(name, "heldout")
            parts: dict[Split, Images] = {
                "train": (_least(images[:train]), labels[:train]),
                "heldout": (_least(held[:heldout]), truth[:heldout]),
            }
            print(f"wrote {write_prepared(options.to / f'{target}.safetensors', parts)}")
    except UserError as error:
        print(f"fashion: {error}", file=sys.stderr)
        return 2
    return 0


def _least(images: Tensor) -> Tensor:
    """As bytes, a quarter of the size, where these say the same."""
    stored = to_uint8(images)
    return stored if torch.equal(to_unit(stored), images) else images


if __name__ == "__main__":
    sys.exit(main())
