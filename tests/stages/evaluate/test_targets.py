"""What the command writes never takes the place of anything it did not write, and says so before it computes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from evaluate_command import REFERENCE, SAMPLES, Evaluate, pictures

from stub_extractor import StubExtractor


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("option", ["--out", "--save-statistics", "--save-features"])
def test_a_target_replaces_neither_a_folder_nor_what_is_read_nor_foreign_files(
    evaluate: Evaluate, files: Path, option: str
) -> None:
    pictures(files / "pictures", SAMPLES[:9])
    (files / "notes.txt").write_text("mine")
    (files / "other.safetensors").write_bytes(b"mine")
    evaluate(files / "reference.npz", "--save-features", files / "saved.safetensors")
    evaluate(files / "samples.npz", "--save-features", files / "ours.safetensors")
    before, seen = tree(files), StubExtractor.seen
    sides = (files / "ours.safetensors", "-r", files / "saved.safetensors")
    for target, why in (
        ("pictures", "is a folder; name a file"),
        ("ours.safetensors", "is what is to be read"),
        ("saved.safetensors", "is what is to be read"),
        ("notes.txt/x.safetensors", "notes.txt is no folder"),
        ("other.safetensors", "`lwd evaluate` did not write it"),
    ):
        assert why in evaluate.refuses(*sides, option, files / target)
    images = (files / "pictures", "-r", files / "reference.npz")
    assert "is a folder; name a file" in evaluate.refuses(*images, option, files / "pictures")
    one = sorted((files / "pictures").rglob("*.png"))[0]
    assert "evaluate." in evaluate.refuses(*images, option, one)
    assert tree(files) == before and StubExtractor.seen == seen


def test_what_the_command_wrote_is_replaced(evaluate: Evaluate, files: Path) -> None:
    saved = files / "saved.safetensors"
    for array in (SAMPLES, REFERENCE):
        np.savez(files / "samples.npz", array)
        code, _, err = evaluate(files / "samples.npz", "-r", files / "reference.npz", "--save-features", saved)
        assert code == 0, err
    assert json.loads((files / "samples.evaluation.json").read_text())["samples"]["count"] == 50
    evaluate.refuses(files / "samples.npz", "-r", saved, "--save-features", saved)
    two = ("--save-features", files / "x.safetensors", "--save-statistics", files / "x.safetensors")
    assert "x.safetensors is the target of" in evaluate.refuses(files / "samples.npz", "-r", saved, *two)
    assert "must end in .safetensors" in evaluate.refuses(files / "samples.npz", "--save-features", files / "f.npz")


def test_a_cache_that_is_a_file_is_refused_first(evaluate: Evaluate, files: Path) -> None:
    sides = (files / "samples.npz", "-r", files / "reference.npz")
    assert "evaluate.cache" in evaluate.refuses(*sides, "--cache", files / "reference.npz")
    assert StubExtractor.seen == 0
