"""What `--help` says of the stages is so, and a shell can complete commands, files and recipes, at no cost at start."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from lwd.cli.keys import all_keys
from lwd.cli.main import app
from lwd.cli.stage_help import STAGES


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_each_stage_says_what_it_reads_and_writes_and_its_keys(stage: str) -> None:
    result = CliRunner().invoke(app, [stage, "--help"], env={"COLUMNS": "400", "TERMINAL_WIDTH": "400"})
    assert result.exit_code == 0
    for word in ("Reads", "Writes", "lwd keys", STAGES[stage].summary.split("`")[0].strip(), *STAGES[stage].keys):
        assert word in result.stdout
    known = {key.name for key in all_keys()}
    assert set(STAGES[stage].keys) <= known
    assert set(STAGES[stage].sections) <= {name.partition(".")[0] for name in known}


@pytest.mark.parametrize(
    ("words", "offered"),
    [("lwd tr", "train"), ("lwd recipes imagenet256/xl-", "imagenet256/xl-1m"), ("lwd train -c ", "")],
)
def test_a_shell_completes(words: str, offered: str) -> None:
    """Where nothing is offered, bash completes files (`complete -o default`)."""
    code = "import sys\nfrom lwd.cli.main import app\n"
    code += "try: app(prog_name='lwd')\nfinally: assert 'torch' not in sys.modules"
    environment = os.environ | {"_LWD_COMPLETE": "complete_bash", "COMP_WORDS": words}
    environment |= {"COMP_CWORD": str(words.count(" ")), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert (offered in done.stdout.split()) if offered else not done.stdout.strip()
    script = CliRunner().invoke(app, ["--show-completion", "bash"], prog_name="lwd")
    assert script.exit_code == 0
