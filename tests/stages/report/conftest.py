"""The hand-made output folder as a fixture."""

from __future__ import annotations

from pathlib import Path

import pytest
from hand_made import PARTS


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A folder with everything."""
    for write in PARTS.values():
        write(tmp_path / "out")
    return tmp_path / "out"
