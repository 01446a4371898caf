"""`lwd evaluate` in this process under a stub of Inception, on a few small images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lwd.cli.main import main
from stub_extractor import StubExtractor

random = np.random.default_rng(0)
SAMPLES = random.integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
REFERENCE = random.integers(0, 230, (50, 4, 4, 3), dtype=np.uint8)


class Evaluate:
    """Runs `lwd evaluate` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self._patch.setattr("sys.argv", ["lwd", "evaluate", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = self._capsys.readouterr()
        return int(exit_.value.code or 0), out, err

    def refuses(self, *arguments: object) -> str:
        code, _, err = self(*arguments, "compute.progress=false")
        assert code == 2 and err.startswith("lwd: ") and err.count("\n") == 1, err
        return err

    def record(self, folder: Path, samples: object, reference: object, *arguments: object) -> dict[str, Any]:
        code, _, err = self(samples, "--reference", reference, "--out", folder / "out.json", *arguments)
        assert code == 0, err
        record: dict[str, Any] = json.loads((folder / "out.json").read_text())
        return record


def features(array: np.ndarray[Any, Any]) -> dict[str, torch.Tensor]:
    return StubExtractor()(torch.from_numpy(array).permute(0, 3, 1, 2))


def pictures(folder: Path, array: np.ndarray[Any, Any], suffix: str = "png") -> Path:
    for number, image in enumerate(array):
        path = folder / f"class{number % 3}" / f"{number:03d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, lossless=True)
    return folder
