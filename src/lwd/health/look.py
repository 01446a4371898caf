"""The first look as a whole: data, network, one step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import nn

from lwd.data.batches import StepBatches
from lwd.data.shards import LatentShards
from lwd.errors import UserError
from lwd.health.finding import Finding
from lwd.health.first_step import MOST, Objective, look_at_step
from lwd.health.latents import labelled, look_at, standardised
from lwd.runtime.checkpoint import find_checkpoints
from lwd.runtime.compute import ComputeConfig

TITLE = "a first look, at one batch (compute.preflight=false leaves it out)"


def due(compute: ComputeConfig, folder: str | Path) -> bool:
    """Whether a run in ``folder`` is to be looked at: a new one, unless ``compute.preflight`` is off."""
    return compute.preflight and not (compute.resume and find_checkpoints(Path(folder)))


def first_look(
    batches: StepBatches,
    classes: int,
    heldout: Callable[[], LatentShards] | None,
    model: nn.Module,
    objective: Objective,
    expected: float,
    fresh: bool,
    autocast: Callable[[], AbstractContextManager[object]],
) -> list[Finding]:
    """Look at the first batch, at all labels, at up to `MOST` held-out images, and at the network's step on the batch.

    ``heldout`` opens the held-out latents, None: there are none; for the rest see `look_at_step`. Changes neither the
    network nor any draw. Raises UserError for numbers that are not finite.
    """
    shards, batch = batches.shards, batches[0]
    findings = look_at(batch.batch, batches.images(0)[batches.mine], shards.layout)
    findings.append(labelled(shards.labels(), classes))
    if heldout is not None:
        findings += _heldout(heldout)
    return findings + look_at_step(model, objective, batch, expected, fresh, autocast)


def _heldout(opened: Callable[[], LatentShards]) -> list[Finding]:
    """Held-out latents on the scale of training's statistics, which are theirs, too."""
    try:
        shards = opened()
        count = min(MOST, len(shards))
        x1 = shards.read(torch.arange(count) * len(shards) // count).x1
    except UserError as error:
        return [Finding("held-out", str(error), False)]
    return list(standardised(x1, shards.layout, ", held out"))
