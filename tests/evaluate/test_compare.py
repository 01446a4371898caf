"""Evaluations in one table, and which are kept apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluate_command import REFERENCE, SAMPLES, Evaluate

from stub_extractor import StubExtractor


def test_comparing(evaluate: Evaluate, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(files / "fewer.npz", SAMPLES[:40])
    records = [files / f"{name}.evaluation.json" for name in ("samples", "fewer")]
    for name in ("samples", "fewer"):
        assert evaluate(files / f"{name}.npz", "-r", files / "reference.npz")[0] == 0
    code, out, err = evaluate("compare", *records)
    assert code == 0, err
    assert out.splitlines()[0].split() == ["FID", "sFID", "IS", "precision", "recall"]
    assert "published: learned, 400K" in out and "sample counts differ (40, 60)" in out
    line = next(line for line in out.splitlines() if "learned, 600 epochs" in line)
    assert line.split()[-5:] == ["1.02", "3.78", "270.8", "0.78", "0.66"]
    code, out, _ = evaluate("compare", *records, "--markdown", "--no-published")
    assert out.startswith("|  | FID |") and "| --- |" in out.splitlines()[1] and "published" not in out
    evaluate(files / "samples.npz", "-r", files / "reference.npz", "--out", files / "k5.json", "evaluate.k=5")
    code, _, err = evaluate("compare", records[0], files / "k5.json")
    assert code == 2 and "k was 3 and 5; evaluate both alike" in err
    np.savez(files / "other.npz", REFERENCE[:40])
    evaluate(files / "samples.npz", "-r", files / "other.npz", "--out", files / "other.json")
    code, _, err = evaluate("compare", records[0], files / "other.json")
    assert code == 2 and "against different references" in err and "other.npz" in err
    monkeypatch.setattr(StubExtractor, "published", False)
    settings = ("--out", files / "weights.json", "evaluate.allow_other_weights=true")
    assert "NOT the published" in evaluate(files / "samples.npz", "-r", files / "reference.npz", *settings)[1]
    code, _, err = evaluate("compare", records[0], files / "weights.json")
    assert code == 2 and "different weights of inception" in err
    assert "not a record of `lwd evaluate`" in evaluate("compare", _written(files / "x.json", "{}"))[2]


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
