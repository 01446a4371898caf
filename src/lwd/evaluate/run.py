"""`lwd evaluate`: how far generated images are from held-out ones, and whether they show the class asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from lwd.config import Config
from lwd.data.samples import INFO, SampleSet
from lwd.encoders.store import Judge, load_decoder, load_judge, read_manifest
from lwd.errors import UserError
from lwd.evaluate.frechet import frechet_distance, gaussian_stats
from lwd.files import write_json
from lwd.runtime.checkpoint import versions
from lwd.runtime.run import RunConfig


class EvaluateSettings(Config):
    """What is compared with what."""

    samples: Path | None = None
    """A folder written by `lwd sample`; None: the only one under OUTPUT/samples."""


class EvaluateConfig(RunConfig):
    """Everything `run` reads."""

    evaluate: EvaluateSettings = EvaluateSettings()


@dataclass(frozen=True)
class Evaluation:
    """Fréchet distance to the held-out images in the judge's features, its accuracy on the labels asked for, mean nfe.

    ``frechet_real`` is the same distance for the training images: what a perfect generator would be near.
    ``accuracy`` is None for unconditional samples.
    """

    samples: str
    count: int
    frechet: float
    frechet_real: float
    accuracy: float | None
    nfe: float
    schedule: str


def run(config: EvaluateConfig) -> Evaluation:
    """Evaluate one folder of samples; also written to ``evaluation.json`` in it. Raises UserError for unfit input."""
    settings = config.evaluate
    folder = settings.samples or _only_samples(config.output / "samples")
    samples = SampleSet.read(folder)
    judge = load_judge(config.data_path)
    channels = read_manifest(config.data_path)["judge"]["image_channels"]
    images = torch.cat(list(samples.images()))[:, :channels].float() / 127.5 - 1
    features, logits = judge_images(judge, images)
    heldout = gaussian_stats(judge_images(judge, real_images(config, "heldout"))[0])
    train = gaussian_stats(judge_images(judge, real_images(config, "train"))[0])
    asked = samples.labels
    conditional = bool((asked < logits.shape[1]).all())
    result = Evaluation(
        samples=str(folder),
        count=len(features),
        frechet=frechet_distance(*heldout, *gaussian_stats(features)),
        frechet_real=frechet_distance(*heldout, *train),
        accuracy=float((logits.argmax(1) == asked).double().mean()) if conditional else None,
        nfe=float(samples.nfe.double().mean()),
        schedule=str(samples.info.get("schedule", "")),
    )
    write_json(folder / "evaluation.json", asdict(result) | {"versions": versions()})
    return result


@torch.no_grad()
def judge_images(judge: Judge, images: Tensor, batch: int = 500) -> tuple[Tensor, Tensor]:
    """Images (N, c, H, W) -> the judge's pooled features (N, D) and logits (N, classes)."""
    parts = [(judge.pooled(chunk), judge(chunk)) for chunk in torch.split(images, batch)]
    return torch.cat([f for f, _ in parts]), torch.cat([logits for _, logits in parts])


def real_images(config: EvaluateConfig, split: str) -> Tensor:
    """The images of a split, decoded from their texture latents."""
    shards = config.shards(split, features=False)
    latents = shards.destandardise(shards.read(torch.arange(len(shards))).x1)
    return load_decoder(config.data_path).decode(latents, config.layout)


def _only_samples(folder: Path) -> Path:
    found = sorted(path.parent for path in folder.glob(f"*/{INFO}"))
    if len(found) != 1:
        raise UserError(f"{folder}: holds {len(found)} folders of samples; name one with evaluate.samples=FOLDER")
    return found[0]
