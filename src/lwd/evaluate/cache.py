"""Features that were computed before: one file for each pair of images and network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lwd.errors import UserError
from lwd.evaluate.featureset import FeatureSet


@dataclass(frozen=True)
class FeatureCache:
    """Files in ``folder``, named after the images' and the network's hashes; None: nothing is kept."""

    folder: Path | None
    say: Callable[[str], None]

    def find(self, extractor: Mapping[str, Any], source: Mapping[str, Any]) -> FeatureSet | None:
        """The features of these images under this network; a damaged file is as good as none, and said to be one."""
        path = self._path(extractor, source)
        if path is None or not path.is_file():
            return None
        try:
            found = FeatureSet.load(path)
        except UserError as error:
            self.say(f"{error}; computed again")
            return None
        return replace(found, source=source)  # the same images may have moved

    def keep(self, made: FeatureSet) -> None:
        """Write them, unless nothing is kept."""
        if (path := self._path(made.extractor, made.source)) is not None:
            made.save(path, torch.device("cpu"), features=True)

    def _path(self, extractor: Mapping[str, Any], source: Mapping[str, Any]) -> Path | None:
        if self.folder is None:
            return None
        key = json.dumps([dict(extractor), source["sha256"], source["count"]], sort_keys=True)
        return self.folder / f"{extractor['name']}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"
