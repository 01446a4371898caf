"""What a CPU can show of CUDA: on a stand-in for a card nothing in a step makes the host wait, nothing lies elsewhere.

`benchmarks/fake_cuda.py` in a process of its own, since to PyTorch there is a card then; it has a control, which waits.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fake_cuda.py"


@pytest.mark.skipif(torch.version.cuda is not None, reason="the stand-in is for PyTorch's CPU build")
def test_no_step_waits_for_a_card_or_leaves_it(tmp_path):
    figures = tmp_path / "figures.jsonl"
    command = [sys.executable, "-W", "ignore", str(SCRIPT)]
    run = subprocess.run(command, env={**os.environ, "FIGURES": str(figures)}, capture_output=True, check=False)
    assert run.returncode == 0, run.stdout.decode() + run.stderr.decode()
    rows = {line["what"]: line for line in map(json.loads, figures.read_text().splitlines())}
    assert set(rows) == {"train", "probe", "held-out", "map", "sample"}
    assert all(row["operations"] > 500 and row["waits"] == 0 for row in rows.values())
    for name in ("held-out", "map", "sample"):  # the last batch, too, which is a part of one
        assert rows[name]["smallest"] < rows[name]["largest"]
