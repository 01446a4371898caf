"""Stage II of Algorithm 1: a fresh denoiser under a frozen schedule."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from lwd.data.batches import StepBatch, StepBatches, StepDraws
from lwd.data.shards import LatentShards
from lwd.errors import UserError
from lwd.files import write_json
from lwd.flow import component_losses, cosine_direction_loss, interpolate, on_grid, repa_loss, weighted_loss
from lwd.groups import Layout
from lwd.health import TITLE, Finding, due, first_look, table, zero_loss
from lwd.models import dropper, model_files, record_of, training_flops
from lwd.models.build import check_network
from lwd.models.network import token_grid
from lwd.models.settings import is_own
from lwd.models.start.lora import adapted_files, has_adapters, load_adapters
from lwd.planning import shortage_on_gpu
from lwd.run import write_run_files
from lwd.runtime.checkpoint import Content, checkpoint_path
from lwd.runtime.hub import CONFIG, load_weights
from lwd.runtime.placement import divide, place
from lwd.runtime.processes import Processes
from lwd.runtime.progress import say
from lwd.runtime.seeding import seed_network
from lwd.schedules import Schedule
from lwd.stages.train.begin import START, begin
from lwd.stages.train.estimate import trained
from lwd.stages.train.heldout import HeldOut
from lwd.stages.train.preview import SamplePreview
from lwd.stages.train.sampled import Sampled, check_sampled, sampled_of
from lwd.stages.train.settings import TrainConfig, TrainSettings, choose_schedule, time_draws
from lwd.training.ema import EMA
from lwd.training.logging import Metric
from lwd.training.loop import fit
from lwd.training.meter import Work, by_local_time
from lwd.training.optim import adamw, set_rate
from lwd.training.power_ema import SNAPSHOTS, PosthocEMA
from lwd.training.previews import Pictures
from lwd.training.task import AveragedTask


class DenoiserObjective(nn.Module):
    """L_theta (Eq. 39) of the denoiser under a frozen schedule, on one process's share of a step."""

    def __init__(
        self, model: nn.Module, layout: Layout, schedule: Schedule, settings: TrainSettings, seed: int
    ) -> None:
        super().__init__()
        self.model, self.layout = model, layout
        self._drop, self._grid = dropper(model), token_grid(model)
        self.schedule = schedule.requires_grad_(False)
        self._settings, self._times = settings, time_draws(settings, schedule)
        self._draws = StepDraws(seed, settings.label_dropout, self._times.numbers)

    def forward(self, step_batch: StepBatch, step: int) -> tuple[Tensor, dict[str, Metric]]:
        """A step's batch -> (L_theta, metrics)."""
        s, ((x1, labels, features), places) = self._settings, step_batch
        draws = self._draws(step, places, x1.shape[1:])
        times, omega = self._times(draws.u)
        z, u = interpolate(draws.x0, x1, times, self.layout)
        if self._drop is not None:
            labels = self._drop(labels, draws.dropped)
        if features is not None:
            v, projected = self.model(z, times, labels, project=True)
        else:
            v = self.model(z, times, labels)
        losses = component_losses(v, u, self.layout)
        loss, by_group = weighted_loss(losses, omega, self.layout, s.reduction)
        metrics: dict[str, Metric] = {"flow": loss, **{f"flow_{name}": value for name, value in by_group.items()}}
        metrics |= by_local_time(losses, times, self.layout)
        if s.cosine_weight:
            metrics["cosine"] = cosine = cosine_direction_loss(v, u, self.layout, s.cosine_floor)
            loss = loss + s.cosine_weight * cosine
        if features is not None:
            target = features if self._grid is None else on_grid(features, self._grid)
            metrics["repa"] = repa = repa_loss(projected, target)
            loss = loss + s.repa_weight * repa
        return loss, metrics


class TrainTask(AveragedTask):
    """The denoiser, its averages and its optimiser, as the processes sees them."""

    module: DenoiserObjective

    def __init__(
        self,
        objective: DenoiserObjective,
        settings: TrainSettings,
        heldout: HeldOut | None = None,
        shard: Callable[..., None] = lambda *models: None,
        preview: SamplePreview | None = None,
        draws: Callable[[int], None] | None = None,
        sampled: Sampled | None = None,
    ) -> None:
        self.module = objective
        self.ema = EMA(objective.model, settings.ema_decay)
        self.posthoc = PosthocEMA(objective.model, settings.posthoc_ema)
        shard(objective.model, self.ema.model, *(average.model for average in self.posthoc.averages.values()))
        self.optimizer = adamw((objective.model, settings.lr), weight_decay=settings.weight_decay)
        self.checkpoint_steps = settings.checkpoint_steps
        self._settings, self._heldout, self._preview, self._draws = settings, heldout, preview, draws
        self._sampled = sampled
        self._device = next(objective.model.parameters()).device

    def before_step(self, step: int) -> None:
        """Set the learning rate, and seed what the network draws by itself."""
        set_rate(self.optimizer, self._settings.lr_at(step))
        if self._draws is not None:
            self._draws(step)

    def after_step(self, step: int) -> Mapping[str, Tensor]:
        """Move the averages; draw samples of the one and measure it and them where due; log a rate that changes."""
        self.ema.update()
        self.posthoc.update(step)
        logged: dict[str, Tensor] = {}
        if self._settings.lr_changes:
            logged["lr"] = torch.full((), self.optimizer.param_groups[0]["lr"], device=self._device)
        if self._preview is not None and self._due(step, self._settings.preview_every):
            self._preview(self.ema.model, step)
        if self._heldout is not None and self._due(step, self._settings.heldout_every):
            logged |= self._heldout.measure(self.ema.model)
        if self._sampled is not None and self._due(step, self._settings.evaluate_every):
            logged |= self._sampled.measure(self.ema.model)
        return logged

    def _due(self, step: int, every: int) -> bool:
        """Every so many steps and at the end; 0: never."""
        return every > 0 and (step % every == 0 or step == self._settings.steps)

    def network_files(self, model: nn.Module, folder: str) -> dict[str, Content]:
        """Of an adapted network, merged, with the adapters apart."""
        return (adapted_files if has_adapters(model) else model_files)(model, folder)

    def load_network(self, model: nn.Module, folder: Path) -> None:
        """Of an adapted network the adapters, since the rest is as `begin` made it."""
        (load_adapters if has_adapters(model) else load_weights)(model, folder)

    def files(self) -> dict[str, Content]:
        """Weights and average, each a folder that `lwd.models.load_model` reads, and all else that goes on."""
        return {
            **super().files(),
            **self.posthoc.files(SNAPSHOTS),
            "schedule.json": self.module.schedule.to_json(),
        }

    def snapshot(self, step: int) -> dict[str, Content]:
        """What `lwd ema` needs of the averages, at the steps whose snapshots are kept; empty at others."""
        if not self.posthoc.averages or not self._due(step, self._settings.posthoc_every):
            return {}
        config = model_files(self.module.model, ".")[f"./{CONFIG}"]
        averages = self.posthoc.snapshot(self._settings.posthoc_dtype)
        return {**averages, CONFIG: config, "schedule.json": self.module.schedule.to_json()}

    def load(self, folder: Path) -> None:
        """What `files` holds."""
        super().load(folder)
        self.posthoc.load(folder / SNAPSHOTS)


def run(config: TrainConfig) -> Path:
    """Algorithm 1, stage II: train to ``train.steps`` under OUTPUT/train/NAME; returns the last checkpoint's folder.

    Raises UserError for input that does not fit.
    """
    settings, layout = config.train, config.layout
    folder = config.output / "train" / settings.name
    processes = Processes(config.compute)
    schedule = choose_schedule(config).to(processes.device)
    shards = _open_shards(config)
    model, start = begin(config, shards, processes)
    flops = training_flops(model, project=shards.feature_dim is not None)
    if processes.is_main:
        for line in _shortage(config, shards, processes.world):
            processes.say(line)
    batches = StepBatches(shards, settings.batch, config.seed, processes.rank, processes.world, config.data.window)
    if processes.is_main and due(config.compute, folder):
        processes.say(table(_look(config, batches, model, schedule, processes), f"train {settings.name}: {TITLE}"))
    place(model, processes)
    heldout = None
    if settings.heldout_every:
        held = config.shards("heldout", features=False)
        config.check_labels(held)
        if held.shape != shards.shape:
            raise UserError(f"{held.path}: latents on a grid {held.shape}, those of {shards.path} on {shards.shape}")
        heldout = HeldOut(held, schedule, settings.reduction, settings.batch, config.seed, processes)

    pictures, preview = Pictures(folder), None
    if settings.preview_every:
        preview = SamplePreview(config, settings.preview_images, schedule, pictures, processes)
        preview.check()
    sampled = sampled_of(config, schedule, shards.statistics, processes)

    def on_start() -> None:
        pictures.start()
        write_run_files(config, folder)
        if start is not None:
            write_json(folder / START, start)

    objective = DenoiserObjective(model, layout, schedule, settings, config.seed)
    draws = None if record_of(model).network is None else partial(seed_network, config.seed, rank=processes.rank)
    task = TrainTask(objective, settings, heldout, partial(divide, processes), preview, draws, sampled)
    begun = {} if start is None else {"init_from": start["fingerprint"]}
    recipe = config.recipe(train=settings.recipe(), schedule=schedule.hash(), **begun)
    fit(
        processes,
        task,
        batches,
        steps=settings.steps,
        folder=folder,
        recipe=recipe,
        title=f"train {settings.name}",
        on_start=on_start,
        work=Work(settings.batch, flops or 0),
    )
    return checkpoint_path(folder, settings.steps)


def look(config: TrainConfig) -> tuple[list[Finding], str]:
    """What a new run would begin with, and a word where the schedule that it asks for is not there yet.

    Then the synchronous one stands in for it. Raises UserError for what `run` would refuse before its first step.
    """
    processes, shards, said = Processes(config.compute), _open_shards(config), ""
    try:
        schedule = choose_schedule(config)
    except UserError as error:
        schedule, said = Schedule.synchronous(config.layout.names), f"under the synchronous schedule, since {error}"
    check_sampled(config, shards.statistics)
    model, _ = begin(config, shards, processes)
    batches = StepBatches(shards, config.train.batch, config.seed, window=config.data.window)
    return _look(config, batches, model, schedule.to(processes.device), processes), said


def _look(
    config: TrainConfig, batches: StepBatches, model: nn.Module, schedule: Schedule, processes: Processes
) -> list[Finding]:
    """What a new run begins with."""
    settings = config.train
    objective = DenoiserObjective(model, config.layout, schedule, settings, config.seed)
    expected = zero_loss(config.layout, settings.reduction)
    fresh = settings.init_from is None and record_of(model).network is None
    classes, heldout = config.model.num_classes, config.heldout_shards()
    return first_look(batches, classes, heldout, model, objective, expected, fresh, processes.autocast)


def check(config: TrainConfig) -> None:
    """Raise UserError for what `run` would refuse of data and network before its work begins, as far as that shows
    without weights; where there is no data yet, of what ``train.evaluate_every`` needs beside it."""
    if not (config.data_path / "train").is_dir():
        check_sampled(config, None)
        return
    shards = _open_shards(config)
    check_sampled(config, shards.statistics)
    try:
        with torch.device("meta"):
            model = config.model.build(config.layout, shards.shape, shards.feature_dim)
        check_network(model, shards.feature_dim, config.train.label_dropout, shards.feature_grid)
        for line in _shortage(config, shards, int(os.environ.get("WORLD_SIZE", "1"))):
            say(line)
    except UserError:
        raise
    except Exception:  # not every network can be built without data; `run` will say what is wrong with it
        if not is_own(config.model.name):
            raise


def _shortage(config: TrainConfig, shards: LatentShards, processes: int) -> list[str]:
    """Lines to say where the GPU's memory will not do."""
    return shortage_on_gpu("train", trained(config, shards.shape, shards.feature_dim), config.compute, processes)


def _open_shards(config: TrainConfig) -> LatentShards:
    """The training data, with the REPA features that the settings ask for."""
    shards = config.shards("train", features=config.train.repa_weight > 0)
    config.check_labels(shards)
    if config.train.repa_weight > 0 and shards.feature_dim is None:
        raise UserError(f"{shards.path}: no REPA features in these shards; encode them, or set train.repa_weight=0")
    return shards


def main_flops(config: TrainConfig) -> int | None:
    """Operations of ``train.steps`` steps, forward and backward, of the network that the shards call for.

    None where they cannot be counted (`training_flops`).
    """
    settings = config.train
    shards = config.shards("train", features=settings.repa_weight > 0)
    flops = config.model.training_flops(config.layout, shards.shape, shards.feature_dim)
    return None if flops is None else settings.steps * settings.batch * flops
