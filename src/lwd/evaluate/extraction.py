"""Images through a network, on all processes: batches of fixed composition, so that their number changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.evaluate.cache import FeatureCache
from lwd.evaluate.extractors import Extractor
from lwd.evaluate.featureset import FeatureSet
from lwd.evaluate.sources import Images
from lwd.runtime.collect import gather_on_main
from lwd.runtime.engine import Engine
from lwd.runtime.progress import progress_bar
from lwd.runtime.reading import read_ahead


def extract(images: Images, extractor: Extractor, batch: int, engine: Engine, cache: Path | None) -> FeatureSet | None:
    """The features of all images on the main process, None on the others; found in ``cache``, or left there.

    Each batch goes to one process, while the next ones are read. About 20 kB an image are kept for Inception.
    """
    found = None
    if engine.is_main:
        source = {"path": images.name, "count": len(images), "sha256": images.fingerprint(), **images.facts}
        store = FeatureCache(cache, engine.say)
        found = store.find(extractor.identity, source)
    if engine.mean(torch.tensor(float(found is not None), device=engine.device)) > 0:
        return found
    features = _through(images, extractor, batch, engine)
    if features is None:
        return None
    if float(features.pop("brightest").max()) <= 1:
        raise UserError(f"{images.name}: no pixel is above 1: values in [0, 1] made uint8? They must be in [0, 255]")
    made = FeatureSet(extractor.identity, source, features, labels=images.labels)
    store.keep(made)
    return made


def _through(images: Images, extractor: Extractor, batch: int, engine: Engine) -> dict[str, Tensor] | None:
    """Round after round a batch on every process; what they give goes to the main one."""
    widths = {**extractor.widths, "brightest": 1}
    columns = dict(zip(widths, _slices(list(widths.values())), strict=True))
    count, whole = len(images), sum(widths.values())
    batches = torch.split(torch.arange(count), batch)
    mine = range(engine.rank, len(batches), engine.world)
    kept = {name: torch.empty(count, width) for name, width in widths.items()} if engine.is_main else None
    title, show = f"{extractor.name} {Path(images.name).name}", engine.is_main and engine.compute.progress
    read = read_ahead(lambda number: (images.read(batches[number]),), mine)
    with progress_bar(title, count, 0, show) as advance:
        for first in range(0, len(batches), engine.world):
            packed = torch.zeros(batch, whole, device=engine.device)
            if first + engine.rank < len(batches):
                (pixels,) = next(read)
                pixels = pixels.to(engine.device)
                for name, values in extractor(pixels).items():
                    packed[: len(pixels), columns[name]] = values
                packed[: len(pixels), columns["brightest"]] = pixels.flatten(1).amax(1, True).float()
            for number, part in enumerate(gather_on_main(engine, packed) or (), start=first):
                if kept is not None and number < len(batches):
                    rows = batches[number]
                    for name, where in columns.items():
                        kept[name][rows] = part[: len(rows), where].cpu()
                    advance(len(rows))
    return kept


def _slices(widths: list[int]) -> Iterator[slice]:
    ends = list(accumulate(widths))
    return (slice(end - width, end) for end, width in zip(ends, widths, strict=True))
