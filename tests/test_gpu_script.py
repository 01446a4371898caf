"""The commands of `benchmarks/gpu.sh`, at full size and small, are ones that its scripts understand: no run is lost."""

import argparse
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from lwd.config import load

REPOSITORY = Path(__file__).parents[1]
SCRIPTS = REPOSITORY / "benchmarks"
STUDY = REPOSITORY / "experiments" / "study"
NOTES = """#!/bin/sh
if [ "$1" = -c ]; then echo 3 11; exit; fi
for word in "$@"; do printf '%s\\t' "$word" >>"$NOTED"; done
echo >>"$NOTED"
"""


class ParsedError(Exception):
    """The command line was understood; nothing is run."""


def started(folder, part, small):
    """The command lines that a call would start."""
    python = folder / "python"
    python.write_text(NOTES)
    python.chmod(0o755)
    noted = {"PYTHON": str(python), "NOTED": str(folder / "noted"), "OUT": str(folder / "out"), "SMALL": small}
    run = ["bash", str(SCRIPTS / "gpu.sh"), part]
    ended = subprocess.run(run, env={**os.environ, **noted}, check=False, capture_output=True).returncode
    assert ended == (part == "study"), "of the study, no rows are there to be packed"
    return [line.rstrip("\t").split("\t") for line in (folder / "noted").read_text().splitlines()]


@pytest.mark.parametrize("small", ["", "1"], ids=["full", "small"])
@pytest.mark.parametrize("part", ["first", "second"])
def test_every_command_is_understood_and_six_minutes_are_enough(tmp_path, monkeypatch, part, small):
    lines = started(tmp_path, part, small)
    figures = [json.loads(line) for line in (tmp_path / "out" / "figures.jsonl").read_text().splitlines()]
    assert len(lines) == len(figures) + 1 and lines[-1][0] == "benchmarks/summary.py", "the summary comes last"
    if not small:
        assert sum(figure["limit_s"] for figure in figures) <= 360
    assert all(figure["exit"] == 0 for figure in figures)

    monkeypatch.syspath_prepend(str(SCRIPTS))
    parse = argparse.ArgumentParser.parse_args

    def parsed(self, *arguments):
        parse(self, *arguments)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    for script, *arguments in lines[:-1]:
        if script == "-m":
            assert all((REPOSITORY / word).exists() for word in arguments if word.startswith("tests/"))
            continue
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        with pytest.raises(ParsedError):
            runpy.run_path(str(REPOSITORY / script), run_name="__main__")


@pytest.mark.parametrize("small", ["", "1"], ids=["full", "small"])
def test_the_study_s_settings_are_understood(tmp_path, monkeypatch, small):
    """What it runs, and the rows of it."""
    monkeypatch.syspath_prepend(str(STUDY))
    import design

    *before, run, rows = started(tmp_path, "study", small)
    assert [line[0] for line in before] == ["experiments/study/fashion.py"] * bool(small)
    assert run[:3] == rows[:3] == ["experiments/study/study.py", "--preset", "gpu"] and "--only" in rows
    overrides = [word for word in run if "=" in word]
    assert bool(overrides) == bool(small)
    config = load(design.StudyConfig, STUDY / "presets" / "gpu.yaml", overrides)
    design.check(config)
    assert config.sample.num == (12 if small else 5000)
