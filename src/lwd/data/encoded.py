"""What `lwd encode` says of the data it leaves: manifest.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lwd.errors import UserError
from lwd.files import read_json

MANIFEST = "manifest.json"


JUDGE = "judge.safetensors"


FORMAT = "lwd.data/1"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of encoded data; raises UserError where there is none."""
    path = folder / MANIFEST
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{path}: not a manifest of encoded data (expected format {FORMAT!r}); run `lwd encode`")
    if missing := [key for key in ("recipe", "fingerprint", "splits", "texture", "judge") if key not in manifest]:
        raise UserError(f"{path}: key {missing[0]!r} is missing; encode the data again")
    return manifest
