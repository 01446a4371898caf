"""The examples as a user runs them: short, and with results that a schedule and a denoiser should have."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from children import HANG_S, started

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = sorted(file.stem for file in EXAMPLES.glob("*.py"))


@pytest.fixture(autouse=True)
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.mark.parametrize("name", NAMES)
def test_they_are_short_and_their_networks_know_nothing_of_lwd(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    assert len(text.splitlines()) < 60
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef) and name == "own_network":
            assert "lwd" not in ast.unparse(node)


def test_own_network() -> None:
    main = import_module("own_network").main
    assert torch.equal(main(probe_steps=6, steps=10), main(probe_steps=6, steps=10)), "seeded throughout"
    samples = main(probe_steps=20, steps=150)
    assert samples.shape == (10, 5, 4, 4) and bool(torch.isfinite(samples).all())
    # The coarse group is the mean of the fine one's four channels: the samples must have learned it to some degree.
    fine, coarse = samples[:, :4].mean(1).flatten(), samples[:, 4].flatten()
    assert float(torch.corrcoef(torch.stack([fine, coarse]))[0, 1]) > 0.7


def test_own_loop() -> None:
    schedule = import_module("own_loop").main(steps=20)
    assert schedule.names == ("fine", "coarse") and schedule.learned == ("fine",)
    tau = torch.linspace(0, 1, 101)
    times, _ = schedule(tau)
    assert bool((times[:, 0] <= tau).all()) and torch.equal(times[:, 1], tau)


def test_three_groups() -> None:
    samples = import_module("three_groups").main(steps=60)
    assert samples.shape == (5, 2 * 16 + 3 * 6 + 8) and bool(torch.isfinite(samples).all())


def test_own_network_on_two_processes() -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, str(EXAMPLES / "own_network.py"), "6", "10"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with started(command, environment=environment, stdout=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=HANG_S)
    assert process.returncode == 0, err[-3000:]
    assert out.count("loss") == 1, "the main process prints, the other does not"
    assert out.count("processes: 2") == 1
