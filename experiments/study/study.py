"""The study: where does order pay, and which rule finds it? All numbers of docs/results.md come from this one command.

    python experiments/study/study.py --preset cpu                 # digits; an hour on two cores
    python experiments/study/study.py --preset cpu-long            # further data sets; a night
    python experiments/study/study.py --preset gpu                 # minutes of one card, in pieces of any length
    python experiments/study/study.py --preset cpu --only rows     # rows of whatever is finished
    python experiments/study/study.py --page                       # the pages alone, from all presets' rows

Whatever was finished before is found again; SIGTERM saves and exits with 75. Runs lie in --output, rows, schedules and
config in --results; of these the pages and figures are made. Last come overrides, as of `lwd`.
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
from learn import costs, learn, probe_rows, score_all, score_rows
from lwd.config import dump, load
from lwd.errors import Preempted, UserError
from lwd.files import read_json, write_json, write_text
from lwd.runtime.checkpoint import versions
from lwd.runtime.progress import say
from page import write_pages
from run import encode_all, explain_all, measured_rows, semantics_rows, train_and_measure
from tables import Results

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PRESETS = HERE / "presets"
STAGES: dict[str, Callable[[StudyConfig], Any]] = {
    "encode": encode_all,
    "semantics": explain_all,
    "learn": learn,
    "score": score_all,
    "train": train_and_measure,
}
ROWS = "rows"
TABLES = ("measurements", "probes", "scores", "semantics")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(path.stem for path in PRESETS.glob("*.yaml")))
    parser.add_argument("--output", type=Path, help="where runs lie; the preset's own unless given")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="a folder there for each preset")
    parser.add_argument("--page", nargs="?", type=Path, const=ROOT / "docs" / "results.md", help="write the pages")
    parser.add_argument("--template", type=Path, default=HERE / "page.md", help="the page's words")
    parser.add_argument("--only", choices=[*STAGES, ROWS], help="this stage alone")
    parser.add_argument("overrides", nargs="*", help="key.sub=value")
    options = parser.parse_args(arguments)
    if options.preset is None and options.page is None:
        parser.error("name a --preset to run, or --page")
    try:
        if options.preset is not None:
            _run(options)
        if options.page is not None:
            publish(options.results, options.template, options.page)
    except UserError as error:
        print(f"study: {error}", file=sys.stderr)
        return 2
    except Preempted as error:
        print(f"study: {error}", file=sys.stderr)
        return 75
    return 0


def _run(options: argparse.Namespace) -> None:
    output = [f"output={options.output}"] if options.output else []
    study = load(StudyConfig, PRESETS / f"{options.preset}.yaml", [*output, *options.overrides])
    check(study)
    for name, stage in STAGES.items():
        if options.only in (None, name):
            say(f"study {options.preset}: {name}", study.compute.progress)
            note_machine(study)
            stage(study)
    if options.only in (None, ROWS):
        collect(study, options.preset, options.results / options.preset)


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
    """Write rows, config, machine, costs and schedules of whatever is finished into ``results``."""
    found = (measured_rows(study), probe_rows(study), score_rows(study), semantics_rows(study))
    for name, rows in zip(TABLES, found, strict=True):
        lines = [json.dumps(row | {"preset": preset}, sort_keys=True, allow_nan=False) for row in rows]
        write_text(results / f"{name}.jsonl", "".join(f"{line}\n" for line in lines))
    write_text(results / "config.yaml", dump(study))
    write_json(results / "facts.json", read_json(study.output / "machine.json") | {"costs": costs(study)})
    for name in study.study.data:
        for path in sorted((study.output / name / "schedules").glob("*.json")):
            if not path.name.endswith("-cost.json"):
                target = results / "schedules" / name / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


def publish(results: Path, template: Path, page: Path) -> None:
    """Write the pages and draw the figures of what `collect` left, under the configs that it was made with."""
    presets = {folder.name: read(folder) for folder in sorted(results.iterdir()) if folder.is_dir()}
    write_pages(template, page, presets)
    for name, found in presets.items():
        save_figures(found, results / name / "schedules", page.parent / "results" / name)


def read(folder: Path) -> Results:
    """The results of a preset; raises UserError where a file is missing."""
    rows = []
    for name in TABLES:
        if not (path := folder / f"{name}.jsonl").is_file():
            raise UserError(f"{path} is missing; `--only rows` writes it")
        rows.append([json.loads(line) for line in path.read_text().splitlines()])
    study, facts = load(StudyConfig, folder / "config.yaml"), read_json(folder / "facts.json")
    return Results(study, *rows, facts=dict(facts))


if __name__ == "__main__":
    sys.exit(main())
