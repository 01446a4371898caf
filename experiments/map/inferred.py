"""Is the schedule found that a network was trained under? Every network of a referee's folder, and the joint ones.

    python experiments/map/inferred.py runs/referee        # after the commands at the head of referee.py

Prints a row for each: how far the line that `lwd schedule infer` finds is from the one of training at most, in either
local time at equal means of both; half of its interval, and whether that holds the truth; what it would write.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lwd.maps.infer import ahead_of
from lwd.runtime.checkpoint import find_checkpoints
from lwd.schedules import Schedule
from lwd.stages.infer import infer


def main() -> None:
    """Infer and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, help="default: FOLDER/data")
    arguments = parser.parse_args()
    data = arguments.data or arguments.folder / "data"
    print("| network | found line, from the truth | half interval | held | gain | verdict | written, from the truth |")
    print("|---|---|---|---|---|---|---|")
    for run in sorted((arguments.folder / "train").iterdir()):
        checkpoints = find_checkpoints(run)
        if not checkpoints:
            continue
        checkpoint = checkpoints[max(checkpoints)]
        truth = Schedule.load(checkpoint / "schedule.json")
        inferred = infer(checkpoint, data)
        found = inferred.found
        cells = ["", f"{found.width:.3f}", "", f"{found.gain:.2f}", "told" if found.clear else "cannot tell", ""]
        if not truth.any_other:
            cells[0], cells[2] = f"{found.distance(truth):.3f}", "yes" if found.holds(truth) else "**no**"
        if found.clear:
            written = inferred.schedule
            apart = abs(ahead_of(written, found.names) - ahead_of(truth, found.names)).max()
            name = next((one.name for one in inferred.candidates if one.schedule is written), "spline")
            cells[5] = f"{name}, {found.leader} leading, {apart:.3f}"
        print(f"| {run.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
