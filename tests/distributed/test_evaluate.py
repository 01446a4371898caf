"""`lwd evaluate` on one process and on two (gloo): the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lwd.cli.main import app
from lwd.stages.evaluate import run
from ranks import in_two_processes
from stub_extractor import StubExtractor


def test_two_processes_give_the_numbers_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An odd number of batches, the last one short; the reference makes one batch, so that a process has none."""
    monkeypatch.setitem(run.__globals__, "InceptionExtractor", StubExtractor)
    random = np.random.default_rng(0)
    np.savez(tmp_path / "samples.npz", random.integers(0, 256, (70, 4, 4, 3), dtype=np.uint8))
    np.savez(tmp_path / "reference.npz", random.integers(0, 230, (12, 4, 4, 3), dtype=np.uint8))
    records = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}.json"
        command = [
            "evaluate",
            str(tmp_path / "samples.npz"),
            f"--reference={tmp_path / 'reference.npz'}",
            f"--out={out}",
            "evaluate.batch=16",
            "evaluate.metrics=[fid, sfid, inception_score, precision, recall, kid, density, coverage]",
            "compute.progress=false",
        ]
        if processes == 1:
            app(command, standalone_mode=False)
            printed = capfd.readouterr().out
        else:
            printed = in_two_processes(tmp_path / "said", app, command)
        assert printed.count("FID") >= 1 and printed.count("wrote") == 1  # by one process
        records.append(json.loads(out.read_text()))
    one, two = records
    assert len(one["metrics"]) == 8 and one["metrics"]["fid"] > 0.01
    for key, value in one["metrics"].items():
        assert two["metrics"][key] == pytest.approx(value, rel=1e-9), key
    assert two["samples"] == one["samples"] and two["extractors"] == one["extractors"]
    for key, interval in one["intervals"].items():
        assert two["intervals"][key]["low"] == pytest.approx(interval["low"], rel=1e-9), key
