"""What the command writes never takes the place of anything it did not write, and says so before it computes."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from evaluate_command import REFERENCE, SAMPLES, Evaluate, pictures

from lwd.stages.evaluate import Evaluation, FeatureSet
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


def test_a_place_that_cannot_be_written_is_refused_first(evaluate: Evaluate, files: Path) -> None:
    sides = (files / "samples.npz", "-r", files / "reference.npz")
    for option, target in (
        ("--out", "/proc/evaluation.json"),
        ("--save-features", "/proc/features.safetensors"),
        ("--save-statistics", f"{files}/{'x' * 240}.safetensors"),
        ("--cache", "/proc/cache"),
    ):
        assert "cannot be written in" in evaluate.refuses(*sides, option, target)
    assert StubExtractor.seen == 0


@pytest.mark.parametrize("lost", [Evaluation, FeatureSet], ids=["record", "features"])
def test_figures_are_shown_before_anything_is_written(
    evaluate: Evaluate, files: Path, monkeypatch: pytest.MonkeyPatch, lost: type
) -> None:
    def full(*arguments: object, **settings: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "the file")

    monkeypatch.setattr(lost, "write" if lost is Evaluation else "save", full)
    sides = (files / "samples.npz", "-r", files / "reference.npz")
    code, out, err = evaluate(*sides, "--save-features", files / "saved.safetensors", "compute.progress=false")
    assert code == 2 and err == "lwd: the file: No space left on device\n"
    assert "FID" in out and "60 samples against" in out and "wrote" not in out
    assert (files / "samples.evaluation.json").is_file() is (lost is FeatureSet)


def test_a_cache_that_fills_the_disk_costs_nothing(
    evaluate: Evaluate, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **settings: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FeatureSet, "save", full)
    code, out, err = evaluate(files / "samples.npz", "-r", files / "reference.npz", "--cache", files / "cache")
    assert code == 0 and "FID" in out and "wrote" in out
    assert err.count("not kept for later (No space left on device)") == 2
