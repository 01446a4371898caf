"""The figures that `gpu.sh` collected, a line each: `python benchmarks/summary.py FOLDER/figures.jsonl`."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """Print them, by benchmark, in the order in which they were measured."""
    if len(sys.argv) < 2:
        print("skipped: name a file of figures")  # as where all benchmarks are run
        return
    for text in Path(sys.argv[1]).read_text().splitlines():
        line = json.loads(text)
        benchmark, what = line.pop("benchmark"), line.pop("what")
        figures = ", ".join(f"{name} {value:.4g}" for name, value in line.items())
        print(f"{benchmark:15s} {what:48.48s} {figures}")


if __name__ == "__main__":
    main()
