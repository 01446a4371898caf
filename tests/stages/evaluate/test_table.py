"""What the screen says of a record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluate_command import REFERENCE, SAMPLES, Evaluate

from lwd.stages.evaluate import run
from lwd.stages.evaluate.record import Evaluation
from lwd.stages.evaluate.table import report
from stub_extractor import StubExtractor


def record(**changes: Any) -> Evaluation:
    settings = {"confidence": 0.95, "metrics": ["fid"]}
    samples = {"path": "a", "count": 60}
    return Evaluation(settings, {"fid": 1.0}, **{"samples": samples, "path": Path("x.json"), **changes})


@pytest.mark.parametrize(
    ("limit", "error", "words"),
    [
        (0.2, 0.3, "infinitely many: 0.20 ± 0.30 (standard error)"),
        (-0.2, 0.3, "infinitely many: -0.20 ± 0.30 (standard error), consistent with 0"),
        (-0.7, 0.3, "infinitely many: -0.70 ± 0.30 (standard error), too low to be true: the samples are too few"),
        (0.2, None, "infinitely many: 0.20"),
        (-0.2, None, "(no distance is negative, and evaluate.bootstrap=0 leaves its error unknown)"),
    ],
)
def test_a_limit_is_never_surer_than_it_is(limit: float, error: float | None, words: str) -> None:
    found = {"counts": [60, 30, 15], "values": [1.0, 2.0, 3.0], "infinity": limit, "standard_error": error}
    lines = report(record(extrapolations={"fid": found})).splitlines()
    assert next(line for line in lines if "infinitely" in line).endswith(words)


def test_without_replicates_no_error_is_shown(evaluate: Evaluate, files: Path) -> None:
    settings = ("evaluate.bootstrap=0", "--out", files / "out.json")
    code, out, err = evaluate(files / "samples.npz", "-r", files / "reference.npz", *settings)
    assert code == 0 and "infinitely many" in out and "±" not in out, err
    assert Evaluation.read(files / "out.json").extrapolations["fid"]["standard_error"] is None


def test_fewer_samples_than_features_are_warned_of(evaluate: Evaluate, files: Path) -> None:
    np.savez(files / "few.npz", SAMPLES[:5])
    code, out, err = evaluate(files / "few.npz", "-r", files / "reference.npz")
    assert code == 0, err
    assert "FID: fewer samples than features (0.83 each): its bias is far larger than its interval" in out
    assert "sFID: fewer" not in out  # 4 features
    assert "(linearised bootstrap)" in out
    saved = Evaluation.read(files / "few.evaluation.json")
    assert saved.details["fid"]["samples_per_feature"] == pytest.approx(5 / 6)


def test_stored_statistics_are_pointed_out(evaluate: Evaluate, files: Path) -> None:
    np.savez(files / "adm.npz", arr_0=REFERENCE, mu=np.zeros(6), sigma=np.eye(6))
    out = evaluate(files / "samples.npz", "-r", files / "adm.npz")[1]
    assert "FID: by the statistics stored with the reference" in out and "sFID: by" not in out


def test_a_line_break_in_a_name_breaks_no_table() -> None:
    lines = report(record(samples={"path": "a\nb", "count": 60})).splitlines()
    assert lines[1] == "a b  1.00"


def classified(monkeypatch: pytest.MonkeyPatch, files: Path, labels: list[int]) -> Path:
    """Images whose first pixel the stub's classifier reads their class off."""
    images = np.repeat(SAMPLES[:1], len(labels), 0)
    images[:, 0, 0, 0] = labels
    np.savez(files / "classes.npz", images)

    def features(self: StubExtractor, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        found = StubExtractor.__call__(self, pixels)
        return found | {"logits": 9.0 * torch.nn.functional.one_hot(pixels[:, 0, 0, 0].long() % 5, 5).float()}

    monkeypatch.setitem(run.__globals__, "InceptionExtractor", type("Sure", (StubExtractor,), {"__call__": features}))
    return files / "classes.npz"


@pytest.mark.parametrize(
    ("labels", "lines"),
    [
        ([0, 1, 2, 3, 4] * 8, []),
        ([0, 1, 2, 3, 4] * 8 + [0], ["the last of 3 splits has 1 of 20 images and counts as much as the others"]),
        (sorted([0, 1, 2, 3, 4] * 8), ["if the images came in random order; their own is by class"]),
        ([0, 1] * 10 + [2, 3, 4] * 7, ["the last of 3 splits has 1 of 20", "in random order; their own is by class"]),
        ([0, 1, 2, 3, 4], ["of one split of 5 images, not 20"]),
    ],
    ids=["whole", "one left over", "sorted", "uneven, one left over", "too few"],
)
def test_what_an_inception_score_owes_to_its_splits(
    evaluate: Evaluate, files: Path, monkeypatch: pytest.MonkeyPatch, labels: list[int], lines: list[str]
) -> None:
    samples = classified(monkeypatch, files, labels)
    settings = ("evaluate.split_size=20", "evaluate.metrics=[inception_score]", "evaluate.bootstrap=0")
    code, out, err = evaluate(samples, "-r", files / "reference.npz", *settings)
    assert code == 0, err
    said = [line for line in out.splitlines() if line.startswith("IS: ")]
    assert len(said) == len(lines) and all(words in line for words, line in zip(lines, said, strict=True)), out
    details = Evaluation.read(files / "classes.evaluation.json").details["inception_score"]
    assert details["last_split"] == (len(labels) - 1) % 20 + 1 and details["splits"] == -(-len(labels) // 20)
    assert ("in_random_order" in details) == (len(labels) > 20)
