"""A first look at a network: its loss on one batch against that of a network that says nothing, and its gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lwd.data.batches import StepBatch
from lwd.data.shards import Batch
from lwd.errors import UserError
from lwd.flow import Reduction
from lwd.flow.losses import group_factors
from lwd.groups import Layout
from lwd.health.finding import Finding
from lwd.models.network import evaluating

MOST, MOST_GRADIENTS = 64, 8
"""Images whose loss is looked at, and whose gradients."""

Objective = Callable[[Any, int], tuple[Tensor, dict[str, Any]]]
"""A step's batch and the step -> the loss, and its parts, ``flow`` among them."""


def zero_loss(layout: Layout, reduction: Reduction) -> float:
    """The expected flow loss of a network whose output is 0, on standardised latents: 2 sum_g c_g.

    The target is u = x1 - x0, with x0 of variance 1 and x1 of mean square 1, so E|u_g|^2 / d_g = 2, and the weights
    omega_g have mean 1 (Lemma 3.3; 1 in SFD's objective), whatever the schedule; c_g: `lwd.flow.losses.group_factors`.
    """
    return 2 * sum(group_factors(layout, reduction))


def look_at_step(
    model: nn.Module,
    objective: Objective,
    batch: StepBatch,
    expected: float,
    fresh: bool,
    autocast: Callable[[], AbstractContextManager[object]],
) -> list[Finding]:
    """The loss of step 0 on up to `MOST` of the images, and the gradients' norm of up to `MOST_GRADIENTS`.

    ``expected``: `zero_loss`; ``fresh``: the network's output is 0 at first, so its loss must be about that, else it is
    the most that it may be. Network, gradients and torch's generators stay as they were. Raises UserError where the
    loss or a gradient is not finite.
    """
    device = next(model.parameters()).device
    count = min(MOST, len(batch.places))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with _untouched(model, device):
        with autocast():
            with torch.no_grad():
                loss, parts = objective(_first(batch, count, device), 0)
            if not bool(torch.isfinite(loss)):
                raise UserError(f"the first loss is {float(loss)}: {_by_part(parts)}; nothing would be learned")
            small, _ = objective(_first(batch, min(count, MOST_GRADIENTS), device), 0)
        gradients = torch.autograd.grad(small, list(trained.values()), allow_unused=True)
    flow = float(parts["flow"])
    tolerance = 0.1 + 2 / count**0.5
    off = abs(flow / expected - 1) if fresh else flow / expected - 1
    said = f"{flow:.3g}, of a network that says nothing {expected:.3g}" + ("" if fresh else " at the most")
    return [
        Finding("first flow loss", said, off <= tolerance),
        _of_gradients(dict(zip(trained, gradients, strict=True))),
    ]


def _of_gradients(gradients: dict[str, Tensor | None]) -> Finding:
    total = 0.0
    for name, gradient in gradients.items():
        square = 0.0 if gradient is None else float(gradient.float().square().sum())
        if not square < float("inf"):
            raise UserError(f"the first gradient of {name!r} is not finite; nothing would be learned")
        total += square
    return Finding("first gradient", f"norm {total**0.5:.3g}", total > 0)


def _by_part(parts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {float(part):.3g}" for name, part in parts.items() if getattr(part, "ndim", 1) == 0)


def _first(batch: StepBatch, count: int, device: torch.device) -> StepBatch:
    """The first ``count`` samples of a step, on the network's device."""
    parts = (None if part is None else part[:count].to(device) for part in batch.batch)
    return StepBatch(Batch(*parts), batch.places[:count].to(device))  # type: ignore[arg-type]


@contextmanager
def _untouched(model: nn.Module, device: torch.device) -> Iterator[None]:
    """The block in which a network is evaluated; its modes, its buffers and torch's generators are put back."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), evaluating(model):
        yield
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
