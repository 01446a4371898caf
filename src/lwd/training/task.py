"""The interface between a stage and the training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from lwd.runtime.checkpoint import Content, load_optimizer, load_tensors, optimizer_tensors
from lwd.runtime.hub import load_weights, model_files
from lwd.training.ema import EMA
from lwd.training.logging import Metric

OPTIMIZER = "optimizer.safetensors"


class Task(ABC):
    """A training task: its module and optimiser, and what happens around each step."""

    module: nn.Module
    """Everything that trains; ``module(step_batch, step)`` -> (loss, metrics), means over its samples."""
    optimizer: Optimizer
    """What updates it."""
    checkpoint_steps: tuple[int, ...] = ()
    """Steps after which a checkpoint is kept for good, beside the periodic ones."""

    def before_step(self, step: int) -> None:  # noqa: B027 - most have nothing to set
        """Called with the number of steps done; may set a scheduled learning rate."""

    def after_step(self, step: int) -> Mapping[str, Metric]:
        """Called with the number of steps done; returns what else to log."""
        return {}

    def stop_after(self, step: int) -> bool:
        """Whether training ends after ``step`` steps, before its last; the same answer on every process, and after a
        checkpoint of that step was loaded."""
        return False

    def at_block(self) -> Mapping[str, Tensor]:
        """Scalars for the last line of each block of the log."""
        return {}

    @abstractmethod
    def files(self) -> dict[str, Content]:
        """The contents of a checkpoint, enough to go on from."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Restore what `files` gave."""

    def snapshot(self, step: int) -> dict[str, Content]:
        """The files to keep for good in the run's folder ``posthoc`` after ``step`` steps; empty: nothing."""
        return {}


class AveragedTask(Task):
    """A task that trains one network and keeps its average: both lie in a checkpoint, each as a model folder."""

    ema: EMA[Any]

    def network_files(self, model: nn.Module, folder: str) -> dict[str, Content]:
        """The model folder of one of the two."""
        return model_files(model, folder)

    def load_network(self, model: nn.Module, folder: Path) -> None:
        """Restore one of the two from what `network_files` gave."""
        load_weights(model, folder)

    def at_block(self) -> Mapping[str, Tensor]:
        """The distance of the average from the weights, relative to them."""
        return {"ema_drift": self.ema.drift()}

    def files(self) -> dict[str, Content]:
        """The contents of a checkpoint: the network, its average and the optimiser."""
        return {
            **self.network_files(self.ema.source, "model"),
            **self.network_files(self.ema.model, "ema"),
            OPTIMIZER: optimizer_tensors(self.module, self.optimizer),
        }

    def load(self, folder: Path) -> None:
        """Restore what `files` gave."""
        self.load_network(self.ema.source, folder / "model")
        self.load_network(self.ema.model, folder / "ema")
        load_optimizer(self.module, self.optimizer, load_tensors(folder / OPTIMIZER))
