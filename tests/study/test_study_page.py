"""docs/results.md is what the study's command writes of the rows that are stored beside it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments" / "study"))

import figures  # noqa: E402
import study  # noqa: E402

PAGE = ROOT / "docs" / "results.md"


def test_the_page_is_the_command_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Letter by letter, in the page's order of presets; figures by their names, since pixels depend on fonts."""
    drawn: list[str] = []
    monkeypatch.setattr(figures, "save_png", lambda path, *_, **__: drawn.append(path.name))
    text = PAGE.read_text()
    presets = re.findall("<!-- study (.*?):", text)
    assert sorted(presets) == sorted(folder.name for folder in (study.HERE / "results").iterdir())
    for preset in presets:
        assert study.main(["--preset", preset, "--only", "page", "--page", str(tmp_path / "results.md")]) == 0
    assert (tmp_path / "results.md").read_text() == text
    assert sorted(drawn) == sorted(path.name for path in (ROOT / "docs" / "results").iterdir())


def test_no_rows_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study.main(["--preset", "gpu", "--only", "page", "--page", str(tmp_path / "results.md")]) == 2
    assert "config.yaml" in capsys.readouterr().err and not (tmp_path / "results.md").exists()
