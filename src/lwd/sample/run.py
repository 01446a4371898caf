"""`lwd sample`: class-balanced samples from a checkpoint, into one safetensors file and a contact sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from safetensors.torch import save_file
from torch import Tensor

from lwd.config import Config
from lwd.data.pictures import save_grid
from lwd.encoders.store import load_decoder
from lwd.errors import UserError
from lwd.files import atomic_path, read_json
from lwd.models import WEIGHTS, LightningDiT, load_model
from lwd.runtime.checkpoint import STATE, find_checkpoints
from lwd.runtime.engine import Engine
from lwd.runtime.progress import progress_bar
from lwd.runtime.run import RunConfig, write_run_files
from lwd.sample.generate import generate
from lwd.sample.guidance import AutoGuidance, ClassifierFreeGuidance
from lwd.sample.methods import Solver
from lwd.sample.plan import Integration
from lwd.sample.trace import trace
from lwd.schedules import Schedule

SAMPLES = "samples.safetensors"


class GuidanceSettings(Config):
    """None, AutoGuidance from a weak model's folder, or classifier-free guidance."""

    kind: Literal["none", "auto", "classifier_free"] = "none"
    scale: float | dict[str, float] = 1.5
    weak: Path | None = None
    """Checkpoint folder of the weak model, trained under the same schedule."""


class SampleSettings(Config):
    """What to sample, and how (the paper's solver settings)."""

    checkpoint: Path | None = None
    """A checkpoint folder; None: the newest of OUTPUT/train/learned."""
    name: str | None = None
    """Results go to OUTPUT/samples/NAME; None: named after the checkpoint."""
    num: PositiveInt = 1000
    batch: PositiveInt = 250
    labels: Literal["balanced", "null"] = "balanced"
    seed: int = Field(default=0, ge=0, lt=2**31)
    solver: Solver = "dopri5"
    steps: PositiveInt = 50
    """Steps of the fixed-step solvers; dopri5 chooses its own."""
    atol: PositiveFloat = 1e-6
    rtol: PositiveFloat = 1e-3
    guidance: GuidanceSettings = GuidanceSettings()
    trace: NonNegativeInt = 0
    """Of how many samples the path is written too, at ``trace_points`` global times, as ``trajectory.safetensors``."""
    trace_points: int = Field(default=9, ge=2)


class SampleConfig(RunConfig):
    """Everything `run` reads."""

    sample: SampleSettings = SampleSettings()


def run(config: SampleConfig) -> Path:
    """Sample ``sample.num`` images; returns the folder with ``samples.safetensors`` and ``grid.png``.

    The file holds latents (N, C, H, W) on the encoders' own scale, labels, seeds and nfe (N,). Raises UserError for
    input that does not fit.
    """
    settings, layout = config.sample, config.layout
    checkpoint = settings.checkpoint or newest_checkpoint(config.output / "train" / "learned")
    folder = config.output / "samples" / (settings.name or f"{checkpoint.parent.name}-{checkpoint.name}")
    engine = Engine(config.compute)
    if engine.world > 1:
        raise UserError("sample: runs on one process so far; start it without torchrun")
    model, schedule = load_checkpoint_model(checkpoint)
    if model.layout.names != layout.names or model.layout.sizes != layout.sizes:
        raise UserError(f"{checkpoint}: model of layout {model.layout}, the config's layout is {layout}")
    check_data(checkpoint, config)
    shards, decoder = config.shards("train", features=False), load_decoder(config.data_path)
    labels = class_labels(settings, model)
    seeds = settings.seed * 2**32 + torch.arange(settings.num)
    guidance = _guidance(config, model, schedule, engine)
    model = engine.place(model)
    latents, nfe = [], []
    with progress_bar(f"sample {folder.name}", settings.num, show=config.compute.progress) as advance:
        for chunk in torch.split(torch.arange(settings.num), settings.batch):
            samples = generate(
                model,
                schedule,
                layout,
                labels[chunk],
                seeds[chunk],
                model.input_size,
                solver=settings.solver,
                atol=settings.atol,
                rtol=settings.rtol,
                guidance=guidance,
                steps=settings.steps,
            )
            latents.append(shards.destandardise(samples.latents).cpu())
            nfe.append(samples.nfe.cpu())
            advance(len(chunk))
    tensors = {"latents": torch.cat(latents), "labels": labels, "seeds": seeds, "nfe": torch.cat(nfe)}
    metadata = {"checkpoint": str(checkpoint), "schedule": schedule.hash()}
    images = decoder.decode(tensors["latents"][:100], layout)
    with atomic_path(folder) as temporary:  # whole, so that nothing measured on older samples stays beside newer ones
        write_run_files(config, temporary)
        save_file(tensors, temporary / SAMPLES, metadata=metadata)
        save_grid(images, temporary / "grid.png")
        if settings.trace:
            _write_trace(settings, temporary / "trajectory.safetensors", model, schedule, labels, seeds, guidance)
    return folder


def _write_trace(
    settings: SampleSettings,
    file: Path,
    model: LightningDiT,
    schedule: Schedule,
    labels: Tensor,
    seeds: Tensor,
    guidance: AutoGuidance | ClassifierFreeGuidance | None,
) -> None:
    some = slice(0, settings.trace)
    taus = torch.linspace(0, 1, settings.trace_points).tolist()
    how = Integration(settings.solver, settings.atol, settings.rtol, settings.steps)
    path = trace(model, schedule, model.layout, labels[some], seeds[some], model.input_size, taus, guidance, how)
    save_file({**vars(path), "labels": labels[some].clone()}, file)


def newest_checkpoint(folder: Path) -> Path:
    """The newest checkpoint of a training run; raises UserError where there is none."""
    found = find_checkpoints(folder)
    if not found:
        raise UserError(f"{folder}: no checkpoints here; train first, or set sample.checkpoint")
    return found[max(found)]


def load_checkpoint_model(checkpoint: Path) -> tuple[LightningDiT, Schedule]:
    """The averaged network of a training checkpoint, or that of `lwd convert`, and the schedule that goes with it."""
    if not checkpoint.is_dir():
        raise UserError(f"{checkpoint}: no such checkpoint folder")
    converted = (checkpoint / WEIGHTS).is_file()
    model = load_model(checkpoint if converted else checkpoint / "ema").eval()
    return model, Schedule.load(checkpoint / "schedule.json")


def check_data(checkpoint: Path, config: SampleConfig) -> None:
    """Raise UserError where a training checkpoint is of other data; a converted model does not say what it saw."""
    if not (checkpoint / STATE).is_file():
        return
    state = read_json(checkpoint / STATE)
    try:
        trained_on = state["recipe"]["data"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{checkpoint / STATE}: not the state of a checkpoint") from error
    present = config.data_fingerprint()
    if trained_on != present:
        raise UserError(f"{checkpoint}: trained on data {trained_on}, {config.data_path} is {present}")


def class_labels(settings: SampleSettings, model: LightningDiT) -> Tensor:
    """Labels (N,): classes in turn, or all null."""
    if settings.labels == "null":
        return torch.full((settings.num,), model.null_label)
    return torch.arange(settings.num) % model.num_classes


def _guidance(
    config: SampleConfig, model: LightningDiT, schedule: Schedule, engine: Engine
) -> AutoGuidance | ClassifierFreeGuidance | None:
    settings = config.sample.guidance
    scale: Any = settings.scale
    if isinstance(scale, dict) and set(scale) != set(config.layout.names):
        raise UserError(f"sample.guidance.scale: must name each of the groups {list(config.layout.names)}")
    if settings.kind == "none":
        return None
    if settings.kind == "classifier_free":
        return ClassifierFreeGuidance(scale, model.null_label)
    if settings.weak is None:
        raise UserError("sample.guidance.weak: AutoGuidance needs the checkpoint folder of a weak model")
    weak, weak_schedule = load_checkpoint_model(settings.weak)
    if weak_schedule.hash() != schedule.hash():
        raise UserError(f"{settings.weak}: the weak model was trained under another schedule than the main one")
    return AutoGuidance(engine.place(weak), scale)
