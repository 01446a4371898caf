"""The line that a stage ends with: a command that goes on and throws nothing away."""

import shlex
from pathlib import Path

import pytest

from lwd.cli.following import following
from lwd.config import load
from lwd.stages.experiment import Experiment

DIGITS = Path(__file__).parents[1] / "configs" / "digits.yaml"


@pytest.mark.parametrize("afresh", ["compute.resume=false", "compute={resume: false, workers: 1}"])
def test_no_later_command_begins_afresh_where_this_one_did(afresh: str) -> None:
    given = [afresh, "seed=3"]
    workers = load(Experiment, DIGITS, given).compute.workers
    for stage, after in (("train", "sample"), ("sample", "evaluate"), ("evaluate", "report")):
        words = shlex.split(following(stage, DIGITS, given).removeprefix("next: "))
        assert words[:4] == ["lwd", after, "-c", str(DIGITS)]
        given = words[4:]
        then = load(Experiment, DIGITS, given)
        assert then.compute.resume is True and then.seed == 3 and then.compute.workers == workers
