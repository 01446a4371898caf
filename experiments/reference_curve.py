"""A run that went well becomes one that `lwd watch` draws behind others of its kind.

python experiments/reference_curve.py runs/digits/train/learned --name "LightningDiT-S/1 on the digits" --made "lwd ..."
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from lwd.config import read_yaml
from lwd.errors import UserError
from lwd.files import read_json, write_text
from lwd.health.reference import CURVES, signature
from lwd.training.logging import read_log


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status. A curve of the same name is replaced."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="OUTPUT/train/NAME, whose log has every step (compute.log_every=1)")
    parser.add_argument("--name", required=True, help="as lwd watch calls it")
    parser.add_argument("--made", required=True, help="the command, and on what it ran")
    parser.add_argument("--every", type=int, default=20, help="steps a mean is taken over")
    parser.add_argument("--curves", type=Path, default=CURVES, help="the file to add it to")
    options = parser.parse_args(arguments)
    try:
        loss = {line["step"]: line["loss"] for line in read_log(options.run / "trace.jsonl") if "loss" in line}
        if options.every < 1 or sorted(loss) != list(range(len(loss))) or not loss or len(loss) % options.every:
            raise UserError(f"{options.run}: {len(loss)} steps in the log; needed is each, and a multiple of --every")
        if not all(map(math.isfinite, loss.values())):
            raise UserError(f"{options.run}: some losses are not finite; that run did not go well")
        starts = range(0, len(loss), options.every)
        means = [sum(loss[step] for step in range(s, s + options.every)) / options.every for s in starts]
        match = signature(read_yaml(options.run / "config.yaml"))
        kept = [one for one in read_json(options.curves)["curves"] if one["name"] != options.name]
    except UserError as error:
        print(f"reference_curve: {error}", file=sys.stderr)
        return 2
    curve = {"name": options.name, "made": options.made, "match": match, "every": options.every}
    curve["loss"] = [round(mean, 4) for mean in means]
    lines = ",\n".join(json.dumps(one) for one in [*kept, curve])
    write_text(options.curves, f'{{"curves": [\n{lines}\n]}}\n')
    print(f"{options.name}: {len(means)} means, {curve['loss'][0]} to {curve['loss'][-1]}, into {options.curves}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
