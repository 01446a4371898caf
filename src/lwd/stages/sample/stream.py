"""Samples of a checkpoint as they are made, for `lwd evaluate`: no file lies between."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lwd.encoders.decoder import decode_rgb
from lwd.errors import UserError
from lwd.models import WEIGHTS
from lwd.models.pretrained import SCHEDULE
from lwd.runtime.processes import Processes
from lwd.sample.numbered import labels_of
from lwd.stages.sample.run import decoder_of, recipe_of
from lwd.stages.sample.sampler import open_sampler
from lwd.stages.sample.settings import SampleConfig


class SampleStream:
    """The images that `lwd sample` would write under this config, any of them by number, on this process.

    ``sample.checkpoint`` must be set. Raises UserError for input that does not fit, as `lwd.stages.sample.run` does.
    """

    def __init__(self, config: SampleConfig) -> None:
        settings, checkpoint, processes = config.sample, config.sample.checkpoint, Processes(config.compute)
        if checkpoint is None:
            raise UserError("sample.checkpoint: name the checkpoint to sample from")
        sampler = open_sampler(config, checkpoint, processes)
        decoder = decoder_of(config, processes.device)
        if decoder is None:
            raise UserError(f"{config.data_path}: no decoder is known; set sample.decoder.path to the VAE's weights")
        self._decoder, self._layout = decoder, config.layout
        recipe = recipe_of(config, checkpoint, sampler.schedule)
        self._sampler = sampler
        self._seeds, self._labels = sampler.seeds(), labels_of(settings.labels, settings.num, sampler.model)
        self._hash = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
        self.name = str(checkpoint)
        self.labels: Tensor | None = self._labels
        self.facts: Mapping[str, Any] = {"checkpoint": str(checkpoint), "schedule": sampler.schedule.hash()}

    def __len__(self) -> int:
        return len(self._labels)

    @torch.inference_mode()
    def read(self, rows: Tensor) -> Tensor:
        """Sample, decode: rows (n,) -> uint8 (n, 3, H, W), on the CPU."""
        samples = self._sampler.sample(self._labels[rows], self._seeds[rows], lambda done: None)
        latents = self._sampler.statistics.destandardise(samples.latents)
        return decode_rgb(self._decoder, latents, self._layout, rows)

    def fingerprint(self) -> str:
        """Of every setting and of the weights."""
        return self._hash


def is_checkpoint(path: Path) -> bool:
    """Whether a folder holds a network, as `lwd train`, `lwd export` and `lwd convert` leave it, or a schedule."""
    return (path / SCHEDULE).is_file() or (path / WEIGHTS).is_file()
