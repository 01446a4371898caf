"""The notebooks of the docs run from top to bottom, small (LWD_QUICK), and keep what came out at their own size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from notebooks import run

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("own_pictures", "runs/pictures/report.html"),
        ("own_network", None),
        ("map_and_score", "runs/digits/score/suggested.json"),
    ],
)
def test_a_notebook_runs(name: str, left: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LWD_QUICK", "1")
    notebook = run(FOLDER / f"{name}.ipynb")
    assert left is None or (tmp_path / left).stat().st_size > 100
    stored = json.loads((FOLDER / f"{name}.ipynb").read_text())
    assert "LWD_QUICK" in str(stored["cells"]) and "image/png" in str(stored["cells"])
    for now, then in zip(notebook["cells"], stored["cells"], strict=True):
        kinds = [
            [(o["output_type"], "image/png" in o.get("data", {})) for o in c.get("outputs", [])] for c in (now, then)
        ]
        assert kinds[0] == kinds[1], f"run `python tests/notebooks.py` on {name}.ipynb again"
