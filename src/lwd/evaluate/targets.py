"""Where an evaluation may write: never over what it reads, nor over what `lwd evaluate` did not write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lwd.errors import UserError
from lwd.evaluate.featureset import FeatureSet
from lwd.evaluate.record import is_record
from lwd.evaluate.settings import EvaluateSettings


def check_targets(settings: EvaluateSettings, out: Path | None, inputs: Sequence[Path]) -> None:
    """Raise UserError unless the record (``out``) and the files to save may be written, before anything is computed.

    A target is a new file, or one that an earlier `lwd evaluate` wrote and that is none of ``inputs``; the cache is a
    folder.
    """
    targets = {
        "evaluate.out": out,
        "evaluate.save_statistics": settings.save_statistics,
        "evaluate.save_features": settings.save_features,
    }
    taken = {path.resolve(): "what is to be read" for path in inputs}
    for key, path in targets.items():
        if path is None:
            continue
        _check_place(key, path)
        if other := taken.get(path.resolve()):
            raise UserError(f"{key}: {path} is {other}, too; name another file")
        taken[path.resolve()] = f"the target of {key}"
        if key != "evaluate.out" and path.suffix != ".safetensors":
            raise UserError(f"{key}: {path} must end in .safetensors, by which it is known when read")
        written_here = is_record if key == "evaluate.out" else FeatureSet.is_saved
        if path.exists() and not written_here(path):
            raise UserError(f"{key}: {path} exists, and `lwd evaluate` did not write it; name another file")
    if settings.cache is not None:
        _check_place("evaluate.cache", settings.cache / "file")


def _check_place(key: str, path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{key}: {path} is a folder; name a file")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UserError(f"{key}: {path} cannot be written, {above} is no folder")
