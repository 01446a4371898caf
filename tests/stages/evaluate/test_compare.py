"""Evaluations in one table, and which are kept apart."""

from __future__ import annotations

import json
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


def test_stored_and_computed_statistics_of_one_reference_are_kept_apart(evaluate: Evaluate, files: Path) -> None:
    """Three saved forms of the same images: with its own statistics, with those of others, and without."""
    records = []
    for name, shift in (("plain", None), ("one", 1.0), ("two", 2.0)):
        stats = {} if shift is None else {"mu": np.full(6, shift), "sigma": np.eye(6)}
        np.savez(files / "adm.npz", arr_0=REFERENCE, **stats)
        evaluate(files / "adm.npz", "--save-features", files / "saved.safetensors")
        evaluate.record(files, files / "samples.npz", files / "saved.safetensors")
        records.append((files / "out.json").rename(files / f"{name}.json"))
        data = json.loads(records[-1].read_text())
        data["reference"]["sha256"] = "one file"
        records[-1].write_text(json.dumps(data))
    for pair in (records[:2], records[1:]):
        code, _, err = evaluate("compare", *pair)
        assert code == 2 and "other statistics of the reference" in err, err


def test_what_two_records_share_is_compared(evaluate: Evaluate, files: Path) -> None:
    """A second network in one of them is no obstacle, nor is it in both; no common network is, and so is another's
    weights between the second and the third."""
    evaluate.record(files, files / "samples.npz", files / "reference.npz")
    data = json.loads((files / "out.json").read_text())

    def variant(name: str, **extractors: dict[str, str]) -> Path:
        networks = {network: identity or data["extractors"]["inception"] for network, identity in extractors.items()}
        metrics = {"fid": 1.0} if "inception" in extractors else {}
        metrics |= {"fd_dinov2": 70.25} if "dinov2" in extractors else {}
        return _written(files / name, json.dumps({**data, "extractors": networks, "metrics": metrics}))

    one = variant("one.json", inception={})
    both = variant("both.json", inception={}, dinov2={"name": "a"})
    other = variant("other.json", inception={}, dinov2={"name": "b"})
    alone = variant("alone.json", dinov2={"name": "a"})
    code, out, err = evaluate("compare", one, both, "--no-published")
    assert code == 0, err
    assert [line.split()[-1] for line in out.splitlines()] == ["FD-DINOv2", "-", "70.2"]
    assert "different networks" in evaluate("compare", one, alone)[2]
    assert "different weights of dinov2" in evaluate("compare", one, both, other)[2]
