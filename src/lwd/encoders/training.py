"""The short training of a small network on the spot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from lwd.errors import UserError
from lwd.files import atomic_path
from lwd.runtime.checkpoint import fill_module, load_optimizer, load_tensors, optimizer_tensors, save_tensors
from lwd.training.optim import lr_factor, set_rate

_MODEL, _OPTIMIZER, _STEP = "model.", "optimizer.", "step"


@dataclass(frozen=True)
class Pause:
    """A way to leave in the middle: ``due`` says, after a step, whether to; ``path`` has what goes on from there."""

    path: Path
    due: Callable[[], bool]

    def save(self, model: nn.Module, optimizer: AdamW, step: int) -> None:
        """What there is after ``step`` steps, as one safetensors file."""
        parts = {_MODEL: model.state_dict(), _OPTIMIZER: optimizer_tensors(model, optimizer)}
        tensors = {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.items()}
        with atomic_path(self.path) as temporary:
            save_tensors(temporary, {**tensors, _STEP: torch.tensor(step)})

    def load(self, model: nn.Module, optimizer: AdamW) -> int:
        """Fill both from what `save` wrote; returns the steps done, 0 where there is nothing. Raises UserError where it
        is damaged."""
        if not self.path.is_file():
            return 0
        tensors = load_tensors(self.path)
        model_part, optimizer_part = (
            {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            for prefix in (_MODEL, _OPTIMIZER)
        )
        if _STEP not in tensors or tensors[_STEP].numel() != 1:
            raise UserError(f"{self.path}: does not say after which step it was left; remove it")
        fill_module(model, model_part, str(self.path))
        load_optimizer(model, optimizer, optimizer_part)
        return int(tensors[_STEP])


def train_briefly(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    lr: float,
    weight_decay: float,
    clip_norm: float | None = None,
    progress: Callable[[int], None] | None = None,
    pause: Pause | None = None,
) -> bool:
    """Train ``model`` in place on ``loss(step)``, a pure function of the step; leaves it in evaluation mode.

    AdamW, a tenth of the steps warm-up, then a cosine to zero; on one thread, so that one seed gives one result on the
    CPU. ``progress`` is called with the number of steps that are done since. Returns whether all are: not where
    ``pause`` was due, from which another call goes on to the same result.
    """
    optimizer = AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay)
    warmup = max(1, steps // 10)
    begin = 0 if pause is None else pause.load(model, optimizer)
    if progress and begin:
        progress(begin)
    model.train()
    with _one_thread():
        for step in range(begin, steps):
            set_rate(optimizer, lr * lr_factor(step, steps, warmup, "cosine"))
            value = loss(step)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            optimizer.step()
            if progress:
                progress(1)
            if pause is not None and step + 1 < steps and pause.due():
                pause.save(model, optimizer, step + 1)
                return False
    model.eval()
    return True


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread on the CPU, so that sums have one order. A second gains such networks little, and on a busy machine
    makes a step several times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
