"""`lwd probe`: stage I of Algorithm 1 on a data set, at one lambda."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from lwd.config import Batch
from lwd.data.batches import StepBatches
from lwd.health import TITLE, Finding, due, first_look, table, zero_loss
from lwd.models import dropper, record_of, training_flops
from lwd.models.build import check_network
from lwd.planning import Trained, shortage_on_gpu
from lwd.probe.learn import learn, new_probe
from lwd.probe.settings import LearnSettings
from lwd.probe.stopping import EarlyStop
from lwd.probe.task import ProbeObjective
from lwd.run import RunConfig, write_run_files
from lwd.runtime.processes import Processes
from lwd.runtime.progress import say
from lwd.runtime.seeding import Stream, seeded
from lwd.schedules import Schedule
from lwd.training.meter import Work


class ProbeSettings(LearnSettings):
    """Stage I on shards; the defaults are the paper's ImageNet values (Table 4)."""

    batch: Batch = 256
    """Images in a step."""


class ProbeConfig(RunConfig):
    """Everything `run` reads."""

    probe: ProbeSettings = ProbeSettings()


def run(config: ProbeConfig, folder: Path | None = None, stop: EarlyStop | None = None) -> Schedule:
    """Algorithm 1, stage I: the learned schedule, also written to ``folder/schedule.json`` (default OUTPUT/probe).

    The denoiser is thrown away. ``stop``: end where this rule says so; a later call without it goes on to the full
    length. Raises UserError for input that does not fit.
    """
    settings, layout = config.probe, config.layout
    alone, folder = folder is None, folder or config.output / "probe"
    processes = Processes(config.compute)
    shards = config.shards("train", features=False)
    config.check_labels(shards)
    with seeded(Stream.INITIALISE, config.seed):
        model = config.model.build(layout, shards.shape)
    check_network(model.to(processes.device), label_dropout=settings.label_dropout)
    if processes.is_main:
        for line in shortage_on_gpu("probe", trained(config, shards.shape), config.compute, processes.world):
            processes.say(line)
    batches = StepBatches(shards, settings.batch, config.seed, processes.rank, processes.world, config.data.window)
    if alone and processes.is_main and due(config.compute, folder):
        processes.say(table(_look(config, batches, model, processes), f"probe: {TITLE}"))
    return learn(
        model,
        batches,
        layout,
        config.leader,
        drop=dropper(model),
        seed=config.seed,
        folder=folder,
        stop=stop,
        compute=config.compute,
        recipe=config.recipe(probe=settings.recipe()),
        provenance=_provenance(config),
        on_start=lambda: write_run_files(config, folder),
        work=Work(settings.batch, training_flops(model) or 0),
        **settings.model_dump(exclude={"batch"}),
    )


def trained(config: ProbeConfig, shape: tuple[int, ...]) -> Trained:
    """The probe's denoiser as far as its memory depends on it: no averages, no REPA head, the curves' few parameters
    left out."""
    return Trained(config.model, config.layout, shape, config.probe.batch, averages=0)


def check(config: ProbeConfig) -> None:
    """Say where the GPU's memory will not do; nothing where there is no data yet."""
    if (config.data_path / "train").is_dir():
        shape, world = config.shards("train", features=False).shape, int(os.environ.get("WORLD_SIZE", "1"))
        for line in shortage_on_gpu("probe", trained(config, shape), config.compute, world):
            say(line)


def _look(config: ProbeConfig, batches: StepBatches, model: nn.Module, processes: Processes) -> list[Finding]:
    """What a new probe begins with."""
    settings = config.probe
    objective = ProbeObjective(
        model,
        new_probe(settings, config.layout, config.leader).to(processes.device),
        config.seed,
        settings.label_dropout,
        dropper(model),
    )
    expected, fresh = zero_loss(config.layout, settings.reduction), record_of(model).network is None
    classes, heldout = config.model.num_classes, config.heldout_shards()
    return first_look(batches, classes, heldout, model, objective, expected, fresh, processes.autocast)


def _provenance(config: ProbeConfig) -> dict[str, Any]:
    return {"batch": config.probe.batch, "model": config.model.name, "data": config.data_fingerprint()}
