"""The line that a stage ends with: a command that goes on and throws nothing away."""

import shlex
from pathlib import Path

import pytest

from lwd.cli.following import following
from lwd.config import load
from lwd.stages.experiment import Experiment

DIGITS = Path(__file__).parents[1] / "configs" / "digits.yaml"


@pytest.mark.parametrize("afresh", ["compute.resume=false", "compute={resume: false, workers: 1}"])
def test_the_next_command_goes_on_where_this_one_began_afresh(afresh: str) -> None:
    given = [afresh, "seed=3"]
    line = following("train", DIGITS, given, load(Experiment, DIGITS, given))
    words = shlex.split(line.removeprefix("next: "))
    assert words[:4] == ["lwd", "sample", "-c", str(DIGITS)]
    then = load(Experiment, DIGITS, words[4:])
    assert then.compute.resume is True and then.seed == 3
    assert then.compute.workers == load(Experiment, DIGITS, given).compute.workers
