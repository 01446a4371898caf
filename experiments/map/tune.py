"""Fine-tuned from a joint network against trained from scratch, at equal total steps; how to run it: `tune.yaml`."""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, stdev

from referee import retrained


def main() -> None:
    """Print a table of the paths: mean and deviation over seeds of both, and of their paired difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    distances = retrained(parser.parse_args().folder / "samples")
    print("| path | from scratch | half joint, half on the path | tuned minus scratch, paired | seeds |")
    print("|---|---|---|---|---|")
    for name, tuned in sorted(distances.items()):
        path = name.removeprefix("tuned_")
        if path == name:
            continue
        seeds = sorted(tuned.keys() & distances[path].keys())
        pairs = [(distances[path][seed], tuned[seed]) for seed in seeds]
        columns = [[scratch for scratch, _ in pairs], [own for _, own in pairs], [b - a for a, b in pairs]]
        print(f"| {path} | {' | '.join(f'{mean(c):.1f} ± {stdev(c):.1f}' for c in columns)} | {len(seeds)} |")


if __name__ == "__main__":
    main()
