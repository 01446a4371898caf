"""Some of what `fuzz.py` tries, and that it would find a fault."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import fuzz
import pytest
from fuzz import SECONDS, attempt, bytes_changed, json_changed, judged
from fuzz_files import Material, materials

from lwd.errors import UserError


def test_every_reader_takes_a_damaged_file_or_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):  # Pillow's, of the pictures
        counts, faults = fuzz.fuzz(range(500), tmp_path)
    assert not faults, "\n".join(f"seed {fault.seed}: {fault.name}: {fault.said}\n{fault.trace}" for fault in faults)
    assert counts.total() == 500 and len({key.rpartition(" ")[0] for key in counts}) > 20
    assert sum(count for key, count in counts.items() if key.endswith("refused")) > 250  # the damage is real


def test_the_files_are_as_they_were_afterwards(tmp_path: Path) -> None:
    found = materials(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for seed in range(40):
        attempt(found, seed)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (UserError("a.json: no"), "refused"),
        (KeyError("x"), "fault"),
        (RecursionError(), "fault"),
        (MemoryError(), "fault"),
        (SystemExit(3), "fault"),
        (None, "taken"),
    ],
)
def test_what_counts_as_a_fault(error: BaseException | None, verdict: str) -> None:
    def read() -> None:
        if error is not None:
            raise error

    assert judged(read)[0] == verdict


def test_too_slow_and_too_large_are_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judged(lambda: bytearray(2**36))[:2] == ("fault", "MemoryError: ")
    monkeypatch.setattr(fuzz, "SECONDS", 0.05)

    def endless() -> None:
        while True:
            pass

    assert SECONDS > 1 and judged(endless)[0] == "fault"


def test_a_seed_gives_the_same_damage_again(tmp_path: Path) -> None:
    data = {"a": [1, {"b": None}], "c": "x"}
    assert len({repr(json_changed(data, random.Random(seed))) for seed in range(50)}) > 15
    for seed in range(20):
        assert repr(json_changed(data, random.Random(seed))) == repr(json_changed(data, random.Random(seed)))
        assert bytes_changed(b"abc" * 99, random.Random(seed)) == bytes_changed(b"abc" * 99, random.Random(seed))
    material = Material("x", tmp_path / "x", lambda: None)
    material.path.write_bytes(b"abc")
    assert attempt([material], 0)[1] == "taken"
