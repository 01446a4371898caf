"""A probe as the training loop sees it: the denoiser and rho in one step, one checkpoint, one log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lwd.data.batches import StepDraws
from lwd.plots.curves import save_probe_curves
from lwd.probe.probe import Probe
from lwd.probe.settings import LearnSettings
from lwd.probe.stopping import EarlyStop, Stopped, Watcher
from lwd.runtime.checkpoint import Content, load_module, load_optimizer, load_tensors, optimizer_tensors
from lwd.schedules import Schedule
from lwd.schedules.distance import POINTS
from lwd.training.logging import Metric
from lwd.training.meter import by_local_time
from lwd.training.previews import Pictures
from lwd.training.task import OPTIMIZER, Task

PREVIEWS = "previews.safetensors"
"""rho at the steps of the pictures so far."""
WATCHER = "stopping.safetensors"

Drop = Callable[[Any, Tensor], Any]
"""The conditions of a batch, without those of the samples that are dropped (B,) bool."""


class ProbeObjective(nn.Module):
    """L_rho (Eq. 38) of the probe denoiser and the schedule, on one process's share of a step."""

    def __init__(self, model: nn.Module, probe: Probe, seed: int, label_dropout: float, drop: Drop | None) -> None:
        super().__init__()
        self.model, self.probe = model, probe
        self._draws, self._drop = StepDraws(seed, label_dropout), drop

    def forward(self, step_batch: tuple[Any, Tensor], step: int) -> tuple[Tensor, dict[str, Metric]]:
        """((x1, condition, ...), places) -> (L_rho, metrics)."""
        (x1, condition, *_), places = step_batch
        draws = self._draws(step, places, x1.shape[1:])
        if self._drop is not None:
            condition = self._drop(condition, draws.dropped)
        seen: list[Tensor] = []

        def velocity(z: Tensor, times: Tensor) -> Tensor:
            v: Tensor = self.model(z, times, condition)
            if v.shape != z.shape:
                raise ValueError(f"the network returns {tuple(v.shape)} for latents of {tuple(z.shape)}")
            seen.append(times)
            return v

        terms = self.probe(velocity, x1, draws.u, draws.x0)
        by_group = {f"flow_{name}": loss for name, loss in terms.by_group.items()}
        by_time = by_local_time(terms.losses, seen[0], self.probe.layout)
        return terms.total, {"flow": terms.flow, "kinetic": terms.kinetic, **by_group, **by_time}


class ProbeTask(Task):
    """One optimiser for both, the running average of rho, and pictures of it in ``folder`` where there is one."""

    module: ProbeObjective

    def __init__(
        self,
        objective: ProbeObjective,
        optimizer: Optimizer,
        settings: LearnSettings,
        rule: EarlyStop | None = None,
        pictures: Pictures | None = None,
        draws: Callable[[int], None] | None = None,
    ) -> None:
        self.module, self.optimizer = objective, optimizer
        self._probe = objective.probe
        self._steps, self._preview_every, self._pictures = settings.steps, settings.preview_every, pictures
        self._drawn: dict[int, dict[str, Tensor]] = {}
        self._draws = draws
        self._watcher = None if rule is None else Watcher(rule, self._probe.schedule, settings.burn_in)
        self._window = 0 if rule is None else rule.window
        self._points = torch.tensor(POINTS, device=self._probe.steps.device)
        self.stopped: Stopped | None = None
        """Why training ended early."""

    def before_step(self, step: int) -> None:
        """Where the run can be resumed, make what the network draws by itself a function of the step."""
        if self._draws is not None:
            self._draws(step)

    @torch.no_grad()
    def after_step(self, step: int) -> Mapping[str, Tensor]:
        """Average rho; log it and three points of each curve; draw where that is due."""
        self._probe.after_step()
        vectors = self._probe.schedule.parameter_vectors()
        if self._watcher is not None:
            self._watcher.add(step, vectors)
        if self._preview_every and (step % self._preview_every == 0 or step == self._steps):
            self._draw(step, vectors)
        rho = {f"rho_{name}": vector for name, vector in vectors.items()}
        return rho | {f"curve_{name}": self._probe.schedule[name](self._points)[0] for name in vectors}

    def stop_after(self, step: int) -> bool:
        """Whether the rule of early stopping ends the probe after ``step`` steps."""
        if self._watcher is None or step % self._window or step >= self._steps:
            return False
        self.stopped = self._watcher.look(step, self._probe.averages())
        return self.stopped is not None

    def learned(self) -> Schedule:
        """The averaged schedule; of a probe that ended early, the one that the rule kept."""
        return self._probe.averaged() if self.stopped is None else self._probe.frozen(self.stopped.vectors)

    def _draw(self, step: int, vectors: Mapping[str, Tensor]) -> None:
        """Draw the present curve, the averaged one and those of the earlier pictures, and remember the present one."""
        present = {name: vector.cpu() for name, vector in vectors.items()}
        if self._pictures is not None:
            probe = self._probe
            averaged = probe.averaged() if step > probe.burn_in else None
            earlier = [probe.frozen(rho) for _, rho in sorted(self._drawn.items())]
            with self._pictures.attempt(step):
                save_probe_curves(self._pictures.file(step), probe.frozen(present), averaged, earlier)
        self._drawn[step] = present

    def files(self) -> dict[str, Content]:
        """The contents of a checkpoint: denoiser, schedule, the sum of rho, and the optimiser."""
        drawn = {f"{step}/{name}": value for step, rho in self._drawn.items() for name, value in rho.items()}
        return {
            "probe.safetensors": self.module.state_dict(),
            OPTIMIZER: optimizer_tensors(self.module, self.optimizer),
            **({PREVIEWS: drawn} if drawn else {}),
            **({WATCHER: self._watcher.state()} if self._watcher is not None else {}),
        }

    def load(self, folder: Path) -> None:
        """Restore what `files` gave."""
        load_module(self.module, folder / "probe.safetensors")
        load_optimizer(self.module, self.optimizer, load_tensors(folder / OPTIMIZER))
        if self._watcher is not None and (folder / WATCHER).is_file():
            self._watcher.load(load_tensors(folder / WATCHER))
        for key, value in (load_tensors(folder / PREVIEWS) if (folder / PREVIEWS).is_file() else {}).items():
            step, _, name = key.partition("/")
            self._drawn.setdefault(int(step), {})[name] = value
