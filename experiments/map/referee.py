"""Rank correlations of one joint network's scores with the distances of networks trained for each path.

    lwd demo  -c experiments/map/referee.yaml compare.processes=1          # the paths' own networks
    lwd train -c experiments/map/referee.yaml train.times=independent train.name=joint
    lwd map   -c experiments/map/referee.yaml train.name=joint
    lwd score -c experiments/map/referee.yaml train.name=joint score.samples=1000 \\
        -s synchronous -s offset:0.3 -s offset:-0.3 -s power:2 -s power:5 -s learned
    python experiments/map/referee.py runs/referee

Prints a table of the paths and, for each score, Spearman's correlation with the mean distance over seeds, with an
interval by resampling the seeds (the same seeds for all paths, as they were run) and within it the paths' scores held.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

REPLICATES = 2000


def retrained(samples: Path) -> dict[str, dict[int, float]]:
    """Frechet distance by path and seed, of what is finished."""
    found: dict[str, dict[int, float]] = {}
    for file in sorted(samples.glob("*-seed*-*/evaluation.json")):
        name = re.fullmatch(r"(.+)-seed(\d+)-\d+", file.parent.name)
        if name is not None:
            found.setdefault(name[1], {})[int(name[2])] = json.loads(file.read_text())["metrics"]["frechet"]
    return found


def main() -> None:
    """Print the table and the correlations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    distances = retrained(folder / "samples")
    rows = {
        row["name"].replace(":", "_"): row for row in json.loads((folder / "score" / "score.json").read_text())["rows"]
    }
    paths = [path for path in distances if path in rows]
    seeds = sorted(set.intersection(*(set(distances[path]) for path in paths)))
    table = np.array([[distances[path][seed] for seed in seeds] for path in paths])
    scores = {
        "held-out loss L": [rows[path]["loss"]["value"] for path in paths],
        "nats J": [rows[path]["nats"]["value"] for path in paths],
        "the paper's L_flow": [rows[path]["flow"] for path in paths],
        "the paper's R_kin": [rows[path]["kinetic"] for path in paths],
    }
    if all(rows[path]["distance"] for path in paths):
        scores["joint network's distance"] = [rows[path]["distance"]["value"] for path in paths]
    print(f"| path | {' | '.join(f'seed {seed}' for seed in seeds)} | {' | '.join(scores)} |")
    print("|---" * (1 + len(seeds) + len(scores)) + "|")
    for number, path in enumerate(paths):
        own = " | ".join(f"{value:.1f}" for value in table[number])
        print(f"| {path} | {own} | {' | '.join(f'{values[number]:.3f}' for values in scores.values())} |")
    generator = np.random.default_rng(0)
    chosen = generator.integers(len(seeds), size=(REPLICATES, len(seeds)))
    for name, values in scores.items():
        whole = spearmanr(values, table.mean(1)).statistic
        drawn = [spearmanr(values, table[:, some].mean(1)).statistic for some in chosen]
        low, high = np.quantile(drawn, [0.025, 0.975])
        print(
            f"\n{name}: rank correlation {whole:.2f} ({low:.2f} to {high:.2f}, {len(paths)} paths, {len(seeds)} seeds)"
        )


if __name__ == "__main__":
    main()
