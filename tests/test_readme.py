"""The README's example runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from lwd.config import load
from lwd.datasets.prepared import read_prepared
from lwd.schedules import Schedule
from lwd.stages.experiment import Experiment

ROOT = Path(__file__).parents[1]


def test_the_ten_lines_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    monkeypatch.chdir(tmp_path)
    learned = Schedule.learnable(["tex", "sem"], "sem")
    learned.requires_grad_(False).save("schedule.json")
    names: dict[str, Any] = {}
    exec(block[1], names)
    scale = torch.zeros((), requires_grad=True)
    value = names["loss"](lambda z, times, labels: scale * z, torch.randn(4, 48, 16, 16), torch.zeros(4))
    value.backward()
    # With v = 0 the loss is E|x1 - x0|^2 = 2 in each group, weighted by 2/3 + 2/3 (mean-flat) and E t' = 1; 12 288
    # entries and 4 times leave it within a few per cent of 8/3.
    assert value.item() == pytest.approx(8 / 3, rel=0.1)
    assert scale.grad is not None and torch.isfinite(scale.grad)


def test_the_configs_of_docs_data_load(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n# (\w+\.yaml)\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), re.DOTALL)
    assert [name for name, _ in blocks] == ["imagenet.yaml", "own.yaml"]
    for name, text in blocks:
        (tmp_path / name).write_text(text)
        load(Experiment, tmp_path / name, [])


def test_the_data_set_of_docs_data_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), re.DOTALL)
    assert block is not None
    monkeypatch.chdir(tmp_path)
    names = {f"{split}images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8) for split in ("", "heldout_")}
    exec(block[1], names | {f"{split}labels": torch.tensor([0, 1]) for split in ("", "heldout_")})
    assert read_prepared(Path("dataset.safetensors"))["heldout"][1].tolist() == [0, 1]
