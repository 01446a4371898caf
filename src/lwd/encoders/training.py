"""The short training of a small network on the spot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lwd.training.optim import lr_factor


def train_briefly(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    lr: float,
    weight_decay: float,
    clip_norm: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Train ``model`` in place on ``loss(step)``, a pure function of the step; leaves it in evaluation mode.

    AdamW, a tenth of the steps warm-up, then a cosine to zero; on one thread, so that one seed gives one result on the
    CPU. ``progress`` is called with 1 after each step.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay)
    warmup = max(1, steps // 10)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, steps, warmup, "cosine"))
    model.train()
    with _one_thread():
        for step in range(steps):
            value = loss(step)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            optimizer.step()
            scheduler.step()
            if progress:
                progress(1)
    model.eval()


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
