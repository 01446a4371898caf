"""Pictures of samples on the way: who draws them when, on one process or many."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from lwd.errors import UserError
from lwd.models import LightningDiT
from lwd.runtime.processes import Processes
from lwd.schedules import Schedule
from lwd.training.previews import Pictures, reason


class Preview(Protocol):
    """Draws samples of a network under a schedule (`lwd.previews.SamplePreview`)."""

    def check(self) -> None:
        """Draw something else once, before the run starts: whatever this raises would spoil every picture."""

    def sample(self, model: LightningDiT, schedule: Schedule) -> Tensor:
        """Latents, standardised as in training, on the CPU. On every process where the network is spread over them."""

    def draw(self, latents: Tensor, file: Path) -> None:
        """Write the picture of what `sample` gave; on the main process alone."""


@dataclass(frozen=True)
class Drawing:
    """Draws the pictures of one run."""

    preview: Preview
    schedule: Schedule
    pictures: Pictures
    processes: Processes

    def check(self) -> None:
        """Raise UserError where no picture could ever be drawn."""
        if not self.processes.is_main:
            return
        try:
            self.preview.check()
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"train.preview_every: no picture can be drawn ({reason(error)}); mend that, or set it to 0"
            ) from error
        self.pictures.check()

    def __call__(self, average: LightningDiT, step: int) -> None:
        """Draw samples of ``average`` after ``step`` steps.

        What goes wrong is a warning, except in the sampling of a network that is spread over processes: one that gave
        up alone would leave the others waiting for its part.
        """
        spread = self.processes.compute.shard and self.processes.world > 1
        samples = [self.preview.sample(average, self.schedule)] if spread else []
        if self.processes.is_main:
            with self.pictures.attempt(step):
                latents = samples[0] if spread else self.preview.sample(average, self.schedule)
                self.preview.draw(latents, self.pictures.file(step))
