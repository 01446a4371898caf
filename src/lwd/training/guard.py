"""Steps that would spoil the weights are skipped: on the device, without waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lwd.errors import UserError
from lwd.files import write_json
from lwd.runtime.sharding import total_norm
from lwd.training.log_file import TRACE, scan_log

WARM_UP = 200
"""Steps before the usual gradient norm is known."""
MEMORY = 100
"""Over about how many steps it is averaged."""


class Guard:
    """Looks at the gradient before every update; clips it, or has the update skipped.

    A step is skipped where the gradient's norm is not finite, or more than ``spike`` times the usual (None: never for
    that). ``clip``: the largest norm that is let through, None for any. A skipped step leaves weights, moments and step
    count as they were. Fused optimisers read both answers, ``found_inf`` and ``grad_scale``, on the device, as they do
    for `torch.amp.GradScaler`; for any other `step` waits for the device.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], optimizer: Optimizer, clip: float | None, spike: float | None
    ) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        self._optimizer, self._clip, self._spike = optimizer, clip, spike
        self._fused = bool(optimizer.defaults.get("fused"))
        device = self._parameters[0].device
        self.usual, self.seen, self.in_a_row, self.longest = (torch.zeros((), device=device) for _ in range(4))

    @torch.no_grad()
    def inspect(self) -> dict[str, Tensor]:
        """Call between backward and `step`; returns ``grad_norm`` and ``skipped`` (0 or 1) to log."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = total_norm(gradients).float()
        skip = ~torch.isfinite(norm)
        if self._spike is not None:
            skip = skip | ((self.seen >= WARM_UP) & (norm > self._spike * self.usual))
        skipped = skip.float()
        weight = (1 - skipped) / (self.seen + 1).clamp(max=MEMORY)
        self.usual = self.usual + weight * torch.where(skip, self.usual, norm - self.usual)
        self.seen = self.seen + 1 - skipped
        self.in_a_row = (self.in_a_row + 1) * skipped
        self.longest = torch.maximum(self.longest, self.in_a_row)
        scale = None if self._clip is None else (norm / self._clip).clamp(min=1).nan_to_num(1)
        self._answer = skipped, scale
        return {"grad_norm": norm, "skipped": skipped}

    @torch.no_grad()
    def step(self) -> None:
        """Do the optimiser's step, or skip it where `inspect` said so."""
        skipped, scale = self._answer
        if self._fused:
            self._optimizer.found_inf = skipped  # type: ignore[attr-defined]
            if scale is not None:
                self._optimizer.grad_scale = scale  # type: ignore[attr-defined]
            self._optimizer.step()
        elif not bool(skipped):
            if scale is not None:
                for gradient in [p.grad for p in self._parameters if p.grad is not None]:
                    gradient.div_(scale)
            self._optimizer.step()

    def longest_run(self) -> int:
        """The most steps skipped in a row since this was last asked; waits for the device."""
        longest, self.longest = int(self.longest), self.in_a_row.clone()
        return longest

    def state(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint must hold."""
        return {"usual": self.usual, "seen": self.seen, "in_a_row": self.in_a_row}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        self.usual, self.seen, self.in_a_row = (
            state[name].to(self.usual.device) for name in ("usual", "seen", "in_a_row")
        )


def check_skipped(
    guard: Guard, limit: int, folder: Path | None, images: Callable[[int], Tensor | None], first: int, is_main: bool
) -> None:
    """Raise UserError where ``limit`` steps in a row were skipped; lists them and their images in ``folder``.

    ``images(step)`` says which images made a step, ``first`` with which step this process began.
    """
    longest = guard.longest_run()
    if longest < limit:
        return
    if folder is None:
        raise UserError(
            f"{longest} steps in a row were skipped, their gradients not finite or far beyond the usual: lower the "
            "learning rate, or clip the gradient's norm"
        )
    report = folder / "skipped.json"
    if is_main:
        steps = [int(line["step"]) for line in scan_log(folder / TRACE) if line.get("skipped")]
        made = {step: images(step) for step in steps if step >= first}
        write_json(report, [{"step": s, "images": None if i is None else i.tolist()} for s, i in made.items()])
    raise UserError(
        f"{folder}: {longest} steps in a row were skipped, their gradients not finite or far beyond the usual "
        f"({report} lists their images); they changed nothing, the steps before may have: lower the learning rate "
        "or set compute.clip_norm, and go back to an earlier checkpoint or start in another output"
    )
