"""Stage I of Algorithm 1: a temporary denoiser and the schedule learn together; the averaged schedule is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

import lwd
from lwd.config import Config
from lwd.data.batches import StepBatch, StepBatches, draw
from lwd.errors import UserError
from lwd.flow import Jacobian, Reduction, interpolate, schedule_objective
from lwd.models import LightningDiT, training_flops
from lwd.probe.stopping import EarlyStop, fit_until_stopped
from lwd.run import RunConfig, write_run_files
from lwd.runtime.checkpoint import Content, load_module, load_optimizer, load_tensors, optimizer_tensors
from lwd.runtime.seeding import Stream, seeded
from lwd.schedules import PolynomialCurve, Schedule
from lwd.schedules.collapse import distance_from_collapse
from lwd.training.logging import Metric
from lwd.training.loop import Engine
from lwd.training.meter import Work, by_local_time
from lwd.training.optim import adamw
from lwd.training.previews import Pictures
from lwd.training.task import OPTIMIZER, Task

CURVE_POINTS = (0.25, 0.5, 0.75)
PREVIEWS = "previews.safetensors"
"""rho at the steps of the pictures so far."""


class ProbeSettings(Config):
    """Stage I; the defaults are the paper's ImageNet values (Table 4)."""

    steps: PositiveInt = 10_000
    burn_in: NonNegativeInt = 5_000
    batch: PositiveInt = 256
    lr: PositiveFloat = 1e-4
    rho_lr: PositiveFloat = 1e-2
    kinetic_weight: NonNegativeFloat = 0.04
    """lambda of Eq. 38."""
    jacobian: Jacobian = "stop"
    reduction: Reduction = "mean_flat"
    degree: PositiveInt = 4
    label_dropout: float = Field(default=0.1, ge=0, le=1)
    preview_every: NonNegativeInt = 0
    """Steps between two pictures of the curve, previews/step-*.png in the probe's folder, one at the end; 0: none."""

    @model_validator(mode="after")
    def _burn_in_ends(self) -> ProbeSettings:
        if not 0 <= self.burn_in < self.steps:
            raise ValueError(
                f"burn_in {self.burn_in} must lie in [0, steps = {self.steps}): nothing is averaged otherwise"
            )
        return self


Preview = Callable[[Path, Schedule, Schedule | None, Sequence[Schedule]], None]
"""Draws into a file: the present schedule, the averaged one (None during burn-in), those of earlier pictures."""


class ProbeConfig(RunConfig):
    """Everything `run` reads."""

    probe: ProbeSettings = ProbeSettings()


class ProbeObjective(nn.Module):
    """L_rho (Eq. 38) of the probe denoiser and the schedule, on one process's share of a step."""

    def __init__(self, model: LightningDiT, schedule: Schedule, settings: ProbeSettings, seed: int) -> None:
        super().__init__()
        self.model, self.schedule = model, schedule
        self._settings, self._seed = settings, seed

    def forward(self, step_batch: StepBatch, step: int) -> tuple[Tensor, dict[str, Metric]]:
        """A step's batch -> (L_rho, metrics)."""
        s, ((x1, labels, _), places) = self._settings, step_batch
        draws = draw(self._seed, step, places, x1.shape[1:], s.label_dropout)
        times, rates = self.schedule(draws.u)
        z, u = interpolate(draws.x0, x1, times, self.model.layout)
        v = self.model(z, times, torch.where(draws.dropped, self.model.null_label, labels))
        terms = schedule_objective(v, u, rates, self.model.layout, s.kinetic_weight, s.jacobian, s.reduction)
        by_group = {f"flow_{name}": loss for name, loss in terms.by_group.items()}
        by_time = by_local_time(v, u, times, self.model.layout)
        return terms.total, {"flow": terms.flow, "kinetic": terms.kinetic, **by_group, **by_time}


class ProbeTask(Task):
    """The probe as the engine sees it: one AdamW for both, and the running sum of rho after burn-in."""

    module: ProbeObjective

    def __init__(
        self,
        objective: ProbeObjective,
        settings: ProbeSettings,
        preview: Callable[[int, Schedule, Schedule | None, Sequence[Schedule]], None] | None = None,
    ) -> None:
        self.module = objective
        self._burn_in, self._steps, self._preview_every = settings.burn_in, settings.steps, settings.preview_every
        self._preview = preview
        self._drawn: dict[int, dict[str, Tensor]] = {}
        self._names = [n for n in objective.schedule.names if isinstance(objective.schedule[n], PolynomialCurve)]
        self.optimizer = adamw((objective.model, settings.lr), (objective.schedule, settings.rho_lr))
        device = next(objective.parameters()).device
        self._points = torch.tensor(CURVE_POINTS, device=device)
        self._sum = {name: torch.zeros_like(self._rho(name)) for name in self._names}
        self._count = 0

    def _rho(self, name: str) -> Tensor:
        curve = self.module.schedule[name]
        assert isinstance(curve, PolynomialCurve)
        return curve.rho.detach()

    @torch.no_grad()
    def after_step(self, step: int) -> Mapping[str, Tensor]:
        """Average rho once burn-in is over; log rho and three points of each curve."""
        if step > self._burn_in:
            self._count += 1
            for name in self._names:
                self._sum[name] += self._rho(name)
        if self._preview_every and (step % self._preview_every == 0 or step == self._steps):
            self._draw(step)
        rho = {f"rho_{name}": self._rho(name).clone() for name in self._names}
        return rho | {f"curve_{name}": self.module.schedule[name](self._points)[0] for name in self._names}

    def _draw(self, step: int) -> None:
        """Hand the schedules to the preview, and remember this one for the pictures to come."""
        present = {name: self._rho(name).cpu().clone() for name in self._names}
        if self._preview is not None:
            averaged = self.frozen(self.averaged()) if self._count else None
            earlier = [self.frozen(rho) for _, rho in sorted(self._drawn.items())]
            self._preview(step, self.frozen(present), averaged, earlier)
        self._drawn[step] = present

    def frozen(self, rho: Mapping[str, Tensor]) -> Schedule:
        """The schedule with the learned groups at ``rho``, on the CPU."""
        schedule = self.module.schedule
        curves = {n: PolynomialCurve.from_rho(rho[n].cpu()) if n in rho else schedule[n] for n in schedule.names}
        return Schedule(curves).requires_grad_(False)

    def averaged(self) -> dict[str, Tensor]:
        """The mean of rho over the steps after burn-in, by group."""
        return {name: self._sum[name] / self._count for name in self._names}

    def files(self) -> dict[str, Content]:
        """Denoiser, schedule, optimiser and the rho buffer."""
        return {
            "probe.safetensors": self.module.state_dict(),
            OPTIMIZER: optimizer_tensors(self.module, self.optimizer),
            "buffer.safetensors": {f"sum/{name}": value for name, value in self._sum.items()}
            | {"count": torch.tensor(self._count)},
            **({PREVIEWS: self._drawn_tensors()} if self._drawn else {}),
        }

    def _drawn_tensors(self) -> dict[str, Tensor]:
        return {f"{step}/{name}": value for step, rho in self._drawn.items() for name, value in rho.items()}

    def load(self, folder: Path) -> None:
        """What `files` holds."""
        load_module(self.module, folder / "probe.safetensors")
        load_optimizer(self.module, self.optimizer, load_tensors(folder / OPTIMIZER))
        buffer = load_tensors(folder / "buffer.safetensors")
        self._count = int(buffer["count"])
        for name in self._names:
            self._sum[name].copy_(buffer[f"sum/{name}"])
        for key, value in (load_tensors(folder / PREVIEWS) if (folder / PREVIEWS).is_file() else {}).items():
            step, _, name = key.partition("/")
            self._drawn.setdefault(int(step), {})[name] = value


def run(
    config: ProbeConfig,
    folder: Path | None = None,
    early: EarlyStop | None = None,
    preview: Preview | None = None,
) -> Schedule:
    """Algorithm 1, stage I: the learned schedule, also written to ``folder/schedule.json`` (default OUTPUT/probe).

    The denoiser is thrown away. ``early``: end where this rule says so; the schedule is then what it makes of the log,
    and a later call without it goes on to the full length. ``preview`` draws what ``probe.preview_every`` asks for
    (`lwd.stages.report.save_probe_curves`). Raises UserError for input that does not fit.
    """
    settings, layout = config.probe, config.layout
    folder = folder or config.output / "probe"
    if settings.preview_every and preview is None:
        raise UserError("probe.preview_every: nothing was given to draw with; use `lwd probe`, or hand in a preview")
    pictures = Pictures(folder)
    engine = Engine(config.compute)
    shards = config.shards("train", features=False)
    config.check_labels(shards)
    with seeded(Stream.INITIALISE, config.seed):
        model = engine.place(config.model.build(layout, shards.input_size))
    engine.shard(model)
    schedule = Schedule.learnable(layout.names, config.leader, degree=settings.degree).to(engine.device)

    def draw_preview(step: int, present: Schedule, averaged: Schedule | None, earlier: Sequence[Schedule]) -> None:
        if preview is not None and engine.is_main:
            with pictures.attempt(step):
                preview(pictures.file(step), present, averaged, earlier)

    def on_start() -> None:
        pictures.start()
        write_run_files(config, folder)

    if settings.preview_every:
        pictures.check()
    task = ProbeTask(ProbeObjective(model, schedule, settings, config.seed), settings, draw_preview)
    recipe = config.recipe(probe=settings.model_dump(mode="json", exclude={"preview_every"}))
    stopped = fit_until_stopped(
        engine,
        early,
        task,
        StepBatches(shards, settings.batch, config.seed, engine.rank, engine.world),
        steps=settings.steps,
        folder=folder,
        recipe=recipe,
        title=f"probe, lambda {settings.kinetic_weight:g}",
        on_start=on_start,
        work=Work(settings.batch, training_flops(model)),
    )
    averaged, more = (stopped.rho, stopped.provenance) if stopped else (task.averaged(), {})
    learned = task.frozen(averaged)
    learned.provenance = {**_provenance(config), **more, "distance_from_collapse": distance_from_collapse(learned)}
    if engine.is_main:
        learned.save(folder / "schedule.json")
    engine.barrier()
    return learned


def _provenance(config: ProbeConfig) -> dict[str, Any]:
    s = config.probe
    return {
        "layout": config.layout.to_list(),
        "lambda": s.kinetic_weight,
        "steps": s.steps,
        "burn_in": s.burn_in,
        "batch": s.batch,
        "jacobian": s.jacobian,
        "reduction": s.reduction,
        "model": config.model.name,
        "seed": config.seed,
        "data": config.data_fingerprint(),
        "lwd": lwd.__version__,
    }
