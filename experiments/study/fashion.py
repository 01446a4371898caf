"""A smaller Fashion-MNIST at 16x16, as a prepared data set: so many pictures that a CPU can show them to a DINOv2.

python experiments/study/fashion.py --to runs
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lwd.datasets.builtin import load
from lwd.datasets.prepared import Images, Split, write_prepared
from lwd.errors import UserError

TRAIN, HELDOUT = 8_000, 2_000


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status. The first pictures of each split: the set's own order is a shuffled one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=Path("runs"), help="where the data set goes; default: runs")
    options = parser.parse_args(arguments)
    try:
        (images, labels), (held, truth) = load("fashion-mnist-16", "train"), load("fashion-mnist-16", "heldout")
    except UserError as error:
        print(f"fashion: {error}", file=sys.stderr)
        return 2
    splits: dict[Split, Images] = {
        "train": (images[:TRAIN], labels[:TRAIN]),
        "heldout": (held[:HELDOUT], truth[:HELDOUT]),
    }
    print(f"wrote {write_prepared(options.to / 'fashion-8k.safetensors', splits)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
