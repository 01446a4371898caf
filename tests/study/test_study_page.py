"""docs/results.md is what the study's command writes of page.md and of the rows that are stored beside it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments" / "study"))

import study  # noqa: E402

PAGE, WORDS = ROOT / "docs" / "results.md", study.HERE / "page.md"


def test_the_pages_are_the_command_s(tmp_path: Path) -> None:
    """Letter by letter; figures by their names, since pixels depend on fonts."""
    assert study.main(["--page", str(tmp_path / "results.md")]) == 0
    assert (tmp_path / "results.md").read_text() == PAGE.read_text()
    for made in (tmp_path / "results").iterdir():
        kept = PAGE.parent / "results" / made.name
        assert kept.is_file() and (made.suffix == ".png" or made.read_text() == kept.read_text())


def test_the_page_is_short() -> None:
    """At most 900 words, tables and captions not counted; of those by hand, also with paragraphs that begin in bold."""
    lines = [line for line in PAGE.read_text().splitlines() if not line.startswith(("|", "!", "*"))]
    assert len(re.findall(r"\w+", " ".join(lines))) <= 900
    by_hand = re.sub(r"^\|.*$|\{\{.*?\}\}", "", WORDS.read_text(), flags=re.MULTILINE)
    assert len(re.findall(r"\w+", by_hand)) <= 900
