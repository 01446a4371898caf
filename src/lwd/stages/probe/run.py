"""`lwd probe`: stage I of Algorithm 1 on a data set, at one lambda."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lwd.config import Batch
from lwd.data.batches import StepBatches
from lwd.models import dropper, training_flops
from lwd.models.build import check_network
from lwd.probe.learn import learn
from lwd.probe.settings import LearnSettings
from lwd.probe.stopping import EarlyStop
from lwd.run import RunConfig, write_run_files
from lwd.runtime.processes import Processes
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
    folder = folder or config.output / "probe"
    processes = Processes(config.compute)
    shards = config.shards("train", features=False)
    config.check_labels(shards)
    with seeded(Stream.INITIALISE, config.seed):
        model = config.model.build(layout, shards.shape)
    check_network(model.to(processes.device), label_dropout=settings.label_dropout)
    return learn(
        model,
        StepBatches(shards, settings.batch, config.seed, processes.rank, processes.world),
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


def _provenance(config: ProbeConfig) -> dict[str, Any]:
    return {"batch": config.probe.batch, "model": config.model.name, "data": config.data_fingerprint()}
