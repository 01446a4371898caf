"""Stage I of Algorithm 1: a temporary denoiser and the schedule learn together; the averaged schedule is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer

import lwd
from lwd.config import parse
from lwd.errors import UserError
from lwd.files import check_place
from lwd.groups import Layout
from lwd.probe.probe import Probe
from lwd.probe.settings import LearnSettings
from lwd.probe.stopping import EarlyStop
from lwd.probe.task import Drop, ProbeObjective, ProbeTask
from lwd.runtime.compute import ComputeConfig
from lwd.runtime.placement import divide, place
from lwd.runtime.processes import Processes
from lwd.runtime.seeding import seed_network
from lwd.schedules import Schedule
from lwd.schedules.collapse import distance_from_collapse
from lwd.training.loading import Cycled
from lwd.training.loop import StepData, fit
from lwd.training.meter import Work
from lwd.training.optim import adamw
from lwd.training.previews import Pictures

MakeOptimizer = Callable[[nn.Module, nn.Module], Optimizer]
"""From the denoiser and the probe, whose parameters are rho."""


def learn(
    model: nn.Module,
    data: Iterable[Any] | StepData[Any],
    layout: Layout,
    leader: str,
    *,
    drop: Drop | None = None,
    optimizer: MakeOptimizer | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    stop: EarlyStop | None = None,
    compute: ComputeConfig | None = None,
    recipe: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    on_start: Callable[[], None] = lambda: None,
    work: Work | None = None,
    **settings: Any,
) -> Schedule:
    """Learn when each group is denoised: Algorithm 1, stage I. Trains ``model``, of which nothing is kept.

    ``model(z, times, condition)`` gives local velocities: z (B, C, ...), times (B, G) in layout order, and whatever
    ``data`` has as condition. ``data``: batches ``x1`` or ``(x1, condition)``, standardised latents x1 (B, C, ...),
    over and over; each process of several brings its own. Or step data (`lwd.data.StepBatches`), a pure function of the
    step. ``drop(condition, dropped)`` gives the condition without those of the samples that are dropped (B,) bool, for
    classifier-free guidance; None: none is dropped. ``optimizer(model, probe)``: AdamW where it is None. ``settings``:
    those of `LearnSettings`: ``steps``, ``burn_in``, ``kinetic_weight`` (lambda), ``lr``, ``rho_lr``, ``family``, ...

    With a ``folder``, it keeps checkpoints, a log and pictures there, goes on where an earlier call was killed (a plain
    loader from its start), and leaves schedule.json. ``stop`` ends it early. ``compute``
    says where it runs. ``recipe`` is what a checkpoint must agree with, ``provenance`` what the schedule's says more;
    ``on_start`` is called before the first step, ``work`` is what a step does.

    Raises UserError for settings that are wrong, and as `lwd.training.loop.fit`; ValueError for an unknown leader.
    """
    chosen = parse(LearnSettings, settings, "probe.learn")
    processes = Processes(compute or ComputeConfig())
    folder = None if folder is None else Path(folder)
    if len(layout.names) == 1:
        raise UserError("probe: the schedule has no learned group; the layout needs at least two")
    if folder is not None and processes.is_main:
        check_place(folder / "schedule.json")
    probe = new_probe(chosen, layout, leader).to(processes.device)
    divide(processes, place(model, processes))
    pictures = None if folder is None else Pictures(folder)
    if pictures is not None and chosen.preview_every:
        pictures.check()
    task = ProbeTask(
        ProbeObjective(model, probe, seed, chosen.label_dropout, drop),
        optimizer(model, probe) if optimizer is not None else adamw((model, chosen.lr), (probe, chosen.rho_lr)),
        chosen,
        stop,
        pictures if processes.is_main else None,
        None if folder is None else lambda step: seed_network(seed, step, processes.rank),
    )

    def start() -> None:
        if pictures is not None:
            pictures.start()
        on_start()

    fit(
        processes,
        task,
        cast(StepData[Any], data if hasattr(data, "images") else Cycled(data, processes.rank)),
        steps=chosen.steps,
        folder=folder,
        recipe={"probe": chosen.recipe(), "seed": seed} if recipe is None else recipe,
        title=f"probe, lambda {chosen.kinetic_weight:g}",
        on_start=start,
        work=work,
    )
    learned = task.learned()
    learned.provenance = {
        "layout": layout.to_list(),
        **_facts(chosen),
        "seed": seed,
        **(provenance or {}),
        **(task.stopped.provenance if task.stopped else {}),
        "distance_from_collapse": distance_from_collapse(learned),
    }
    if folder is not None and processes.is_main:
        learned.save(folder / "schedule.json")
    processes.barrier()
    return learned


def new_probe(settings: LearnSettings, layout: Layout, leader: str) -> Probe:
    """A probe as it starts."""
    return Probe(
        layout,
        leader,
        settings.kinetic_weight,
        burn_in=settings.burn_in,
        family=settings.family,
        **settings.objective(layout.names),
        **settings.curve_settings,
    )


def _facts(settings: LearnSettings) -> dict[str, Any]:
    """What a schedule's provenance says of the settings."""
    return {
        "lambda": settings.kinetic_weight,
        "steps": settings.steps,
        "burn_in": settings.burn_in,
        "jacobian": settings.jacobian,
        "reduction": settings.reduction,
        "lwd": lwd.__version__,
    }
