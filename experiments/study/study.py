"""The study: where does order pay, and which rule finds it? All numbers of docs/results.md come from this one command.

    python experiments/study/study.py --preset cpu                 # digits; an hour on two cores
    python experiments/study/study.py --preset cpu --extra         # further paths; an hour more
    python experiments/study/study.py --preset cpu-long            # further data sets; a night
    python experiments/study/study.py --preset gpu                 # minutes of one card, in pieces of any length
    python experiments/study/study.py --preset cpu-long --data dino     # one of its data sets
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

from design import StudyConfig, check, data_config, measurements, part_of, way_of, without_extra
from figures import save_figures
from learn import costs, learn, probe_rows, score_all, score_rows
from lwd.config import dump, load
from lwd.errors import Preempted, UserError
from lwd.files import read_json, write_json, write_text
from lwd.runtime.checkpoint import versions
from lwd.runtime.progress import say
from page import write_pages
from prediction import predict_all, prediction_rows
from run import encode_all, explain_all, keep_rows, measured_rows, semantics_rows, train_and_measure
from stats import key_of
from tables import Results

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PRESETS = HERE / "presets"
STAGES: dict[str, Callable[[StudyConfig], Any]] = {
    "encode": encode_all,
    "semantics": explain_all,
    "learn": learn,
    "predict": predict_all,
    "score": score_all,
    "train": train_and_measure,
}
ROWS = "rows"
MEASUREMENTS, FACTS, CONFIG = "measurements.jsonl", "facts.json", "config.yaml"
KEPT = ("*/schedules/*.json", "*/sweep/table.json", "*/scores.json", "*/explained.json", "*/prediction.json")
"""Small files of OUTPUT that a preset's results hold, too, at the same places: for the page, and to go on from."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(path.stem for path in PRESETS.glob("*.yaml")))
    parser.add_argument("--output", type=Path, help="where runs lie; the preset's own unless given")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="a folder there for each preset")
    parser.add_argument("--page", nargs="?", type=Path, const=ROOT / "docs" / "results.md", help="write the pages")
    parser.add_argument("--template", type=Path, default=HERE / "page.md", help="the page's words")
    parser.add_argument("--only", choices=[*STAGES, ROWS], help="this stage alone")
    parser.add_argument("--extra", action="store_true", help="train the cells that are marked extra, too")
    parser.add_argument("--data", action="append", help="these data sets of the preset alone (may be repeated)")
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
    part = part_of(study, options.data or study.study.data)
    ordinary = without_extra(part)
    if options.extra and part == ordinary:
        raise UserError("--extra: no cell of what is asked for is marked extra")
    if options.only in (None, ROWS):
        check_kept(study, part, options.results / options.preset)
    for name, stage in STAGES.items():
        if options.only in (None, name):
            say(f"study {options.preset}: {name}", study.compute.progress)
            note_machine(study)
            stage(ordinary if name == "train" and not options.extra else part)
            if name == "encode":  # rows are known by their latents, too
                restore(part, options.results / options.preset)
                if options.only is None and not options.extra:
                    check_extra(part, measured_rows(part), options.results / options.preset)
    if options.only in (None, ROWS):
        collect(study, part, options.results / options.preset)


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


def check_kept(study: StudyConfig, part: StudyConfig, results: Path) -> None:
    """Refuse, before anything runs, settings that rows of ``results`` were not made under and that are not run again:
    one config is written for all."""
    kept = {row["data"]: None for row in _kept(study, part, results)}
    if not kept or not (results / CONFIG).is_file():
        return
    before = load(StudyConfig, results / CONFIG, [f"output={study.output}"])
    for name in kept:
        if name not in before.study.data or _settings(before, name) != _settings(study, name):
            where = f"{results}: its rows of {name!r} were made under other settings"
            raise UserError(f"{where}; run that again, too, or give another folder as --results")


def _settings(study: StudyConfig, name: str) -> list[Any]:
    """What the rows of a data set depend on: its source's settings, too, and the budget of its joint network."""
    source = study.study.data[name].shuffled
    cells = [cell for cell in study.study.cells.values() if cell.data == name]
    return [
        data_config(study, name).model_dump(exclude={"compute"}),
        max(step for cell in cells for step in cell.budgets) if cells else None,
        {solver: study.study.solvers[solver] for cell in cells for solver in cell.solvers},
        study.study.weak if any(cell.guided for cell in cells) else None,
        source and (source, _settings(study, source)),
    ]


def _kept(study: StudyConfig, part: StudyConfig, results: Path) -> list[dict[str, Any]]:
    """The rows of ``results`` of data sets that are not asked for."""
    rows = _rows(results) if (results / MEASUREMENTS).is_file() else []
    others = study.study.data.keys() - {cell.data for cell in part.study.cells.values()}
    return [row for row in rows if row["data"] in others]


def check_extra(part: StudyConfig, measured: Sequence[dict[str, Any]], results: Path) -> None:
    """Refuse to lose rows of extra cells that ``results`` has and ``measured`` has not: their settings or latents are
    other ones."""
    extra = {(way_of(one), one.run.seed) for one in {*measurements(part)} - {*measurements(without_extra(part))}}
    if not extra or not (results / MEASUREMENTS).is_file():
        return
    before, now = ({(key_of(row), row["seed"]) for row in rows} for rows in (_rows(results), measured))
    if lost := extra & before - now:
        where = f"{results}: {len(lost)} of its rows, of extra cells, were made under other settings or latents"
        raise UserError(f"{where}; run all of it with --extra, or give other folders as --results and --output")


def collect(study: StudyConfig, part: StudyConfig, results: Path) -> None:
    """Write rows, config, machine and small files of what is finished of ``part`` into ``results``; rows of other data
    sets stay as they are there."""
    measured = measured_rows(part)
    check_extra(part, measured, results)
    order = list(study.study.data)
    rows = [*measured, *_kept(study, part, results)]
    rows.sort(key=lambda row: order.index(row["data"]))
    lines = [json.dumps(row, sort_keys=True, allow_nan=False) for row in rows]
    write_text(results / MEASUREMENTS, "".join(f"{line}\n" for line in lines))
    write_text(results / CONFIG, dump(study))
    write_json(results / FACTS, read_json(study.output / "machine.json"))
    _copy(study.output, results, replace=True)


def restore(study: StudyConfig, results: Path) -> None:
    """Put what an earlier session left in ``results`` back where it is found again, unless something is there."""
    if (results / MEASUREMENTS).is_file():
        _copy(results, study.output, replace=False)
        keep_rows(study, _rows(results))


def _copy(source: Path, target: Path, replace: bool) -> None:
    for path in (path for pattern in KEPT for path in sorted(source.glob(pattern))):
        there = target / path.relative_to(source)
        if replace or not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, there)


def publish(results: Path, template: Path, page: Path) -> None:
    """Write the pages and draw the figures of what `collect` left, under the configs that it was made with."""
    presets = {folder.name: read(folder) for folder in sorted(results.iterdir()) if folder.is_dir()}
    write_pages(template, page, presets)
    for name, found in presets.items():
        save_figures(found, page.parent / "results" / name)


def read(folder: Path) -> Results:
    """The results of a preset; raises UserError where a file is missing."""
    study, facts = load(StudyConfig, folder / CONFIG, [f"output={folder}"]), dict(read_json(folder / FACTS))
    rows = _rows(folder)
    part = part_of(study, {row["data"] for row in rows})  # other data wait for their rows
    tables = (probe_rows(part), score_rows(part), semantics_rows(part), prediction_rows(part))
    return Results(study, rows, *tables, costs(part), facts)


def _rows(folder: Path) -> list[dict[str, Any]]:
    if not (path := folder / MEASUREMENTS).is_file():
        raise UserError(f"{path} is missing; `--only rows` writes it")
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    sys.exit(main())
