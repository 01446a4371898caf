"""Pictures of samples while a denoiser trains, on one process or many."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from lwd.data.encoded import MANIFEST
from lwd.data.shards import LatentShards
from lwd.encoders.decoder import Decoder, load_decoder
from lwd.errors import UserError
from lwd.images.colours import LatentColours
from lwd.images.sheets import save_grid, side_by_side
from lwd.models import record_of
from lwd.run import RunConfig
from lwd.runtime.processes import Processes
from lwd.sample import generate
from lwd.schedules import Schedule
from lwd.training.previews import Pictures, reason

SOLVER_STEPS = 20
_FIT_ON = 512
"""How many real latents the colours of latents are fitted on."""


@dataclass(frozen=True)
class SamplePreview:
    """Draws ``count`` samples, of classes spread over all of them, always from the same seeds.

    Heun's method in 20 steps. Decoded where the data has a decoder, else every group's latents in colours (up to three
    principal directions), side by side.
    """

    config: RunConfig
    count: int
    schedule: Schedule
    pictures: Pictures
    processes: Processes

    def check(self) -> None:
        """Load what decodes and draw a real latent; raises UserError where no picture could ever be drawn."""
        if not self.processes.is_main:
            return
        try:
            self._images(self._shards.read(torch.zeros(1, dtype=torch.int64)).x1)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"train.preview_every: no picture can be drawn ({reason(error)}); mend that, or set it to 0"
            ) from error
        self.pictures.check()

    def __call__(self, average: nn.Module, step: int) -> None:
        """Draw samples of ``average`` after ``step`` steps.

        What goes wrong is a warning, except in the sampling of a network that is spread over processes: one that gave
        up alone would leave the others waiting for its part.
        """
        spread = self.processes.compute.shard and self.processes.world > 1
        samples = [self.sample(average)] if spread else []
        if self.processes.is_main:
            with self.pictures.attempt(step):
                latents = samples[0] if spread else self.sample(average)
                self.draw(latents, self.pictures.file(step))

    def sample(self, model: nn.Module) -> Tensor:
        """Standardised latents (N, C, ...) on the CPU. Raises UserError where one is not finite."""
        count, classes = self.count, self.config.model.num_classes
        places = torch.arange(count)
        labels = places * classes // count if count < classes else places % classes
        arguments = (model, self.schedule, self.config.layout, labels, places, record_of(model).sample_shape)
        return generate(*arguments, solver="heun", steps=SOLVER_STEPS).latents.cpu()

    def draw(self, latents: Tensor, file: Path) -> None:
        """Write the grid of them."""
        save_grid(self._images(latents), file, columns=math.ceil(math.sqrt(len(latents))))

    @cached_property
    def _shards(self) -> LatentShards:
        return self.config.shards("train", features=False)

    @cached_property
    def _decoder(self) -> Decoder | None:
        path = self.config.data_path
        return load_decoder(path) if (path / MANIFEST).is_file() else None

    @cached_property
    def _colours(self) -> dict[str, LatentColours]:
        real = self._shards.read(torch.arange(min(_FIT_ON, len(self._shards)))).x1
        return {name: LatentColours.fit(part) for name, part in self.config.layout.split(real).items()}

    def _images(self, latents: Tensor) -> Tensor:
        """Standardised latents (N, C, ...) -> images (N, c, H', W') in [-1, 1]."""
        layout = self.config.layout
        if self._decoder is not None:
            return self._decoder.decode(self._shards.destandardise(latents), layout)
        parts = [self._colours[name](part) for name, part in layout.split(latents).items()]
        return side_by_side(parts)
