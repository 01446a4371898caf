"""Images through a network, on all processes: batches of fixed composition, so that their number changes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.evaluation.extractors import Extractor
from lwd.evaluation.features import FeatureSet
from lwd.evaluation.images import Images
from lwd.runtime.processes import Processes
from lwd.runtime.progress import progress_bar
from lwd.training.loading import read_ahead

FEATURES = "features"
"""Under OUTPUT: where an experiment's own real images keep their features."""


@dataclass(frozen=True)
class FeatureCache:
    """Files in ``folder``, named after the images' and the network's hashes; None: nothing is kept."""

    folder: str | Path | None
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
        """Write them, unless nothing is kept; where that cannot be, say so and go on."""
        if (path := self._path(made.extractor, made.source)) is None:
            return
        try:
            made.save(path, torch.device("cpu"), features=True)
        except OSError as error:
            self.say(f"{path}: not kept for later ({error.strerror or error})")

    def _path(self, extractor: Mapping[str, Any], source: Mapping[str, Any]) -> Path | None:
        if self.folder is None:
            return None
        key = json.dumps([dict(extractor), source["sha256"], source["count"]], sort_keys=True)
        return Path(self.folder) / f"{extractor['name']}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"


def extract(
    images: Images, extractor: Extractor, batch: int, processes: Processes, cache: str | Path | None
) -> FeatureSet | None:
    """The features of all images on the main process, None on the others; found in ``cache``, or left there.

    Each batch goes to one process, while the next ones are read. About 20 kB an image are kept for Inception.
    """
    found = None
    if processes.is_main:
        source = {"path": images.name, "count": len(images), "sha256": images.fingerprint(), **images.facts}
        store = FeatureCache(cache, processes.say)
        found = store.find(extractor.identity, source)
    if processes.mean(torch.tensor(float(found is not None), device=processes.device)) > 0:
        return found
    features = _through(images, extractor, batch, processes)
    if features is None:
        return None
    if float(features.pop("brightest").max()) <= 1:
        raise UserError(f"{images.name}: no pixel is above 1: values in [0, 1] made uint8? They must be in [0, 255]")
    made = FeatureSet(extractor.identity, source, features, labels=images.labels)
    store.keep(made)
    return made


def _through(images: Images, extractor: Extractor, batch: int, processes: Processes) -> dict[str, Tensor] | None:
    """Round after round a batch on every process; what they give goes to the main one."""
    widths = {**extractor.widths, "brightest": 1}
    columns = dict(zip(widths, _slices(list(widths.values())), strict=True))
    count, whole = len(images), sum(widths.values())
    batches = torch.split(torch.arange(count), batch)
    mine = range(processes.rank, len(batches), processes.world)
    kept = {name: torch.empty(count, width) for name, width in widths.items()} if processes.is_main else None
    title, show = f"{extractor.name} {Path(images.name).name}", processes.is_main and processes.compute.progress
    read = read_ahead(lambda number: (images.read(batches[number]),), mine)
    with progress_bar(title, count, 0, show) as advance:
        for first in range(0, len(batches), processes.world):
            packed = torch.zeros(batch, whole, device=processes.device)
            if first + processes.rank < len(batches):
                (pixels,) = next(read)
                pixels = pixels.to(processes.device)
                for name, values in extractor(pixels).items():
                    packed[: len(pixels), columns[name]] = values
                packed[: len(pixels), columns["brightest"]] = pixels.flatten(1).amax(1, True).float()
            for number, part in enumerate(processes.gather_on_main(packed) or (), start=first):
                if kept is not None and number < len(batches):
                    rows = batches[number]
                    for name, where in columns.items():
                        kept[name][rows] = part[: len(rows), where].cpu()
                    advance(len(rows))
    return kept


def _slices(widths: list[int]) -> Iterator[slice]:
    ends = list(accumulate(widths))
    return (slice(end - width, end) for end, width in zip(ends, widths, strict=True))
