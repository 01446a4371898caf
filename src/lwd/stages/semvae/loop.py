"""`lwd semvae`: trains the semantic VAE on the patch features in the shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from lwd.config import Batch, Config
from lwd.data.features import FeatureBatch, FeatureBatches, FeatureShards
from lwd.encoders.semvae import HEADS, SemVAE
from lwd.errors import UserError
from lwd.files import atomic_path
from lwd.run import RunConfig, write_run_files
from lwd.runtime.hub import save_model
from lwd.runtime.processes import Processes
from lwd.runtime.seeding import Stream, normal, seeded
from lwd.stages.semvae.heldout import HeldOut
from lwd.stages.semvae.losses import semvae_loss
from lwd.training.ema import EMA
from lwd.training.loop import fit
from lwd.training.meter import Work
from lwd.training.optim import adamw, lr_factor, set_rate
from lwd.training.task import AveragedTask


class SemVAESettings(Config):
    """The semantic VAE; the defaults are SFD's, as far as its public training settings say (docs/semvae.md)."""

    channels: PositiveInt = 16
    """Of the compressed semantic latent."""
    depth: PositiveInt = 4
    """Blocks of encoder and decoder each."""
    heads: PositiveInt = HEADS
    """Of attention."""
    steps: PositiveInt = 1_000_000
    """Of training."""
    batch: Batch = 64
    """Images in a step."""
    lr: PositiveFloat = 5e-5
    """Of AdamW, after the warm-up."""
    warmup: NonNegativeInt = 500
    """Steps of linear warm-up; a cosine to zero follows."""
    weight_decay: NonNegativeFloat = 0.01
    """Of AdamW."""
    ema_decay: float = Field(default=0.0, ge=0, le=1)
    """0: no averaging; the model that is kept is the one that trained."""
    mse_weight: NonNegativeFloat = 1.0
    """Of the squared error of the reconstructed features."""
    cosine_weight: NonNegativeFloat = 1.0
    """Of their angle's error."""
    l1_weight: NonNegativeFloat = 0.0
    """Of their absolute error."""
    kl_weight: NonNegativeFloat = 1e-7
    """Of the KL divergence to a standard normal."""
    eval_every: PositiveInt = 2000
    """Steps between two measurements on held-out images; there is one at the end, too."""

    @model_validator(mode="after")
    def _warmup_ends(self) -> SemVAESettings:
        if self.warmup >= self.steps:
            raise ValueError(f"warmup {self.warmup} must be under steps = {self.steps}")
        return self


class SemVAEConfig(RunConfig):
    """Everything `run` reads."""

    semvae: SemVAESettings = SemVAESettings()


class SemVAEObjective(nn.Module):
    """The loss of one process's share of a step, at one sample of each posterior."""

    def __init__(self, model: SemVAE, settings: SemVAESettings, seed: int) -> None:
        super().__init__()
        self.model = model
        self._settings, self._seed = settings, seed

    def forward(self, batch: FeatureBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """A step's features -> (loss, metrics): ``cosine`` is the similarity, latent moments are (k,), by channel."""
        s, features = self._settings, batch.features.float()
        posterior = self.model.posterior(features)
        shape = tuple(posterior.mean.shape[1:])
        latents = posterior.sample(normal(Stream.NOISE, self._seed, step, batch.places, shape))
        weights = {name: getattr(s, name) for name in ("mse_weight", "cosine_weight", "l1_weight", "kl_weight")}
        terms = semvae_loss(self.model.decode(latents), features, posterior, **weights)
        return terms.total, {
            "mse": terms.mse,
            "cosine": 1 - terms.cosine,
            "l1": terms.l1,
            "kl": terms.kl,
            "latent_mean": posterior.mean.mean((0, 2, 3)),
            "latent_mean_square": posterior.mean.square().mean((0, 2, 3)),
            "posterior_variance": posterior.logvar.exp().mean((0, 2, 3)),
        }


class SemVAETask(AveragedTask):
    """The VAE, its average and its optimiser, as the processes sees them; measures the average on held-out images."""

    def __init__(self, objective: SemVAEObjective, settings: SemVAESettings, heldout: HeldOut) -> None:
        self.module = objective
        self.optimizer = adamw((objective.model, settings.lr), weight_decay=settings.weight_decay)
        self.ema = EMA(objective.model, settings.ema_decay)
        self._settings, self._heldout = settings, heldout

    def before_step(self, step: int) -> None:
        """Set the learning rate, a pure function of the step."""
        s = self._settings
        set_rate(self.optimizer, s.lr * lr_factor(step, s.steps, s.warmup, "cosine"))

    def after_step(self, step: int) -> Mapping[str, Tensor]:
        """Move the average; measure it where that is due."""
        self.ema.update()
        if step % self._settings.eval_every == 0 or step == self._settings.steps:
            self._heldout.measure(self.ema.model, step)
        return {}


def run(config: SemVAEConfig) -> Path:
    """Train on the features of ``data.path/train``; returns OUTPUT/semvae/model, which `load_semvae` reads.

    Leaves measurements on ``data.path/heldout`` in OUTPUT/semvae/heldout.json. Raises UserError for input that does not
    fit.
    """
    settings, folder = config.semvae, config.output / "semvae"
    if isinstance(config.data.path, str):
        raise UserError("data.path: lwd semvae reads shards from a folder, not from a URL; copy the data first")
    processes = Processes(config.compute)
    train = FeatureShards(config.data_path / "train", config.data.flip)
    heldout = FeatureShards(config.data_path / "heldout")
    if train.shape[0] != heldout.shape[0]:
        raise UserError(f"{heldout.path}: features of {heldout.shape[0]} channels, those to train on {train.shape[0]}")
    batches = FeatureBatches(train, settings.batch, config.seed, processes.rank, processes.world)
    try:
        with seeded(Stream.INITIALISE, config.seed):
            model = SemVAE(train.shape[0], settings.channels, settings.depth, settings.heads).to(processes.device)
    except ValueError as error:
        raise UserError(f"semvae: {error}; choose other semvae.heads") from error
    measured = HeldOut(heldout, folder / "heldout.json", settings.batch, processes)
    task = SemVAETask(SemVAEObjective(model, settings, config.seed), settings, measured)

    def on_start() -> None:
        if not config.compute.resume:
            measured.path.unlink(missing_ok=True)
        write_run_files(config, folder)

    fit(
        processes,
        task,
        batches,
        steps=settings.steps,
        folder=folder,
        recipe=_recipe(config),
        title="semvae",
        on_start=on_start,
        work=Work(settings.batch),
    )
    if processes.is_main:
        with atomic_path(folder / "model") as temporary:
            save_model(task.ema.model, temporary)
    processes.barrier()
    return folder / "model"


def _recipe(config: SemVAEConfig) -> dict[str, Any]:
    """What decides the result: not the groups or the denoiser, but the number of steps, which the schedule needs."""
    settings = config.semvae.model_dump(mode="json", exclude={"eval_every"})
    return {"seed": config.seed, "flip": config.data.flip, "data": config.data_fingerprint(), "semvae": settings}
