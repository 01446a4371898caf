"""`lwd evaluate` on one process and on two (gloo): the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_two_processes import free_port

SCRIPT = Path(__file__).parent / "evaluate_stub.py"


def evaluate(processes: int, *arguments: str) -> str:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={free_port()}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*launcher, str(SCRIPT), *arguments, "compute.progress=false"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    """An odd number of batches, the last one short; the reference makes one batch, so that a process has none."""
    random = np.random.default_rng(0)
    np.savez(tmp_path / "samples.npz", random.integers(0, 256, (70, 4, 4, 3), dtype=np.uint8))
    np.savez(tmp_path / "reference.npz", random.integers(0, 230, (12, 4, 4, 3), dtype=np.uint8))
    records = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}.json"
        printed = evaluate(
            processes,
            str(tmp_path / "samples.npz"),
            f"--reference={tmp_path / 'reference.npz'}",
            f"--out={out}",
            "evaluate.batch=16",
            "evaluate.metrics=[fid, sfid, inception_score, precision, recall, kid, density, coverage]",
        )
        assert printed.count("FID") >= 1 and printed.count("wrote") == 1  # by one process
        records.append(json.loads(out.read_text()))
    one, two = records
    assert len(one["metrics"]) == 8 and one["metrics"]["fid"] > 0.01
    for key, value in one["metrics"].items():
        assert two["metrics"][key] == pytest.approx(value, rel=1e-9), key
    assert two["samples"] == one["samples"] and two["extractors"] == one["extractors"]
    for key, interval in one["intervals"].items():
        assert two["intervals"][key]["low"] == pytest.approx(interval["low"], rel=1e-9), key
