"""The command under a stub of Inception, and two files of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluate_command import REFERENCE, SAMPLES, Evaluate

from lwd.stages.evaluate import run
from stub_extractor import StubExtractor


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    monkeypatch.setitem(run.__globals__, "InceptionExtractor", StubExtractor)
    monkeypatch.setattr(StubExtractor, "seen", 0)
    return Evaluate(monkeypatch, capsys)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    np.savez(tmp_path / "samples.npz", SAMPLES)
    np.savez(tmp_path / "reference.npz", REFERENCE)
    return tmp_path
