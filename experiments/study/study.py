"""The study: where do learned schedules help? All numbers of docs/results.md come from this one command.

    python experiments/study/study.py --preset cpu                 # digits; about 40 minutes on two cores
    python experiments/study/study.py --preset gpu                 # Fashion-MNIST; hours, in pieces of any length
    python experiments/study/study.py --preset cpu --only rows     # rows of whatever is finished
    python experiments/study/study.py --preset cpu --only page     # the page's block, from the rows: no run is needed

Whatever was finished before is found again; SIGTERM saves and exits with 75. Runs lie in --output, rows, schedules and
config in --results; of these the page's block and figures are made. Last come overrides, as of `lwd`.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from design import StudyConfig, check
from figures import save_figures
from lwd.config import dump, load
from lwd.errors import Preempted, UserError
from lwd.files import read_json, write_json, write_text
from lwd.runtime.checkpoint import versions
from lwd.runtime.progress import say
from page import render, write_page
from prediction import predict_all, prediction_rows
from probes import learn, probe_rows
from run import encode_all, explain_all, measure_all, measured_rows, semantics_rows, train_all

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PRESETS = HERE / "presets"
STAGES: dict[str, Callable[[StudyConfig], Any]] = {
    "encode": encode_all,
    "semantics": explain_all,
    "probe": learn,
    "predict": predict_all,
    "train": train_all,
    "measure": measure_all,
}
ROWS, PAGE = "rows", "page"
TABLES = ("measurements", "probes", "semantics", "predictions")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", required=True, choices=sorted(path.stem for path in PRESETS.glob("*.yaml")))
    parser.add_argument("--output", type=Path, help="where runs lie; the preset's own unless given")
    parser.add_argument("--results", type=Path, help="default: experiments/study/results/PRESET")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "results.md")
    parser.add_argument("--only", choices=[*STAGES, ROWS, PAGE], help="this stage alone")
    parser.add_argument("overrides", nargs="*", help="key.sub=value")
    options = parser.parse_args(arguments)
    output = [f"output={options.output}"] if options.output else []
    try:
        study = load(StudyConfig, PRESETS / f"{options.preset}.yaml", [*output, *options.overrides])
        check(study)
        for name, stage in STAGES.items():
            if options.only in (None, name):
                say(f"study {options.preset}: {name}", study.compute.progress)
                note_machine(study)
                stage(study)
        results = options.results or HERE / "results" / options.preset
        if options.only in (None, ROWS):
            collect(study, options.preset, results)
        if options.only in (None, PAGE):
            publish(options.preset, results, options.page)
    except UserError as error:
        print(f"study: {error}", file=sys.stderr)
        return 2
    except Preempted as error:
        print(f"study: {error}", file=sys.stderr)
        return 75
    return 0


def note_machine(study: StudyConfig) -> None:
    """Say once in OUTPUT what the study ran on."""
    if not (study.output / "machine.json").is_file():
        write_json(study.output / "machine.json", {"machine": machine(), **versions()})


def machine() -> str:
    """The GPU, or the processor and its cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {torch.multiprocessing.cpu_count()} cores"


def collect(study: StudyConfig, preset: str, results: Path) -> None:
    """Write rows, config, machine and schedules of whatever is finished into ``results``."""
    facts = read_json(study.output / "machine.json")
    tables = (measured_rows(study), probe_rows(study), semantics_rows(study), prediction_rows(study))
    for name, some in zip(TABLES, tables, strict=True):
        lines = [json.dumps(row | {"preset": preset}, sort_keys=True, allow_nan=False) for row in some]
        write_text(results / f"{name}.jsonl", "".join(f"{line}\n" for line in lines))
    write_text(results / "config.yaml", dump(study))
    write_json(results / "machine.json", facts)
    for cell in study.study.cells:
        for path in sorted((study.output / "cells" / cell / "schedules").glob("*.json")):
            target = results / "schedules" / cell / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def publish(preset: str, results: Path, page: Path) -> None:
    """Draw the figures and write the page's block of what `collect` left, under the config that it was made with."""
    study, facts = load(StudyConfig, results / "config.yaml"), read_json(results / "machine.json")
    rows, probes, semantics, predictions = (read_rows(results / f"{name}.jsonl") for name in TABLES)
    figures = save_figures(study, rows, probes, semantics, predictions, page.parent / "results" / preset)
    write_page(page, preset, render(study, preset, facts, rows, probes, semantics, predictions, figures, page))
    say(f"{page}: {len(rows)} measurements", study.compute.progress)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of one table; raises UserError where the file is missing."""
    if not path.is_file():
        raise UserError(f"{path} is missing; `--only rows` writes it")
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    sys.exit(main())
