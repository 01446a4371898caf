"""`lwd evaluate`: how far generated images are from held-out ones, and whether they show the class asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lwd.config import Config
from lwd.encoders.store import Judge, load_decoder, load_judge
from lwd.errors import UserError
from lwd.evaluate.frechet import frechet_distance, gaussian_stats
from lwd.files import write_json
from lwd.groups import Layout
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
    tensors, metadata = _read_samples(folder / "samples.safetensors", config.layout)
    judge = load_judge(config.data_path)
    decoder = load_decoder(config.data_path)
    features, logits = judge_images(judge, decoder.decode(tensors["latents"], config.layout))
    heldout = gaussian_stats(judge_images(judge, real_images(config, "heldout"))[0])
    train = gaussian_stats(judge_images(judge, real_images(config, "train"))[0])
    asked = tensors["labels"]
    conditional = bool((asked < logits.shape[1]).all())
    result = Evaluation(
        samples=str(folder),
        count=len(features),
        frechet=frechet_distance(*heldout, *gaussian_stats(features)),
        frechet_real=frechet_distance(*heldout, *train),
        accuracy=float((logits.argmax(1) == asked).double().mean()) if conditional else None,
        nfe=float(tensors["nfe"].double().mean()),
        schedule=metadata.get("schedule", ""),
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
    found = sorted(path.parent for path in folder.glob("*/samples.safetensors"))
    if len(found) != 1:
        raise UserError(f"{folder}: holds {len(found)} folders of samples; name one with evaluate.samples=FOLDER")
    return found[0]


def _read_samples(path: Path, layout: Layout) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as handle:
            tensors = {key: handle.get_tensor(key) for key in ("latents", "labels", "nfe")}
            metadata = handle.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a file of samples ({error}); `lwd sample` makes one") from error
    if tensors["latents"].shape[1] != layout.channels:
        raise UserError(f"{path}: samples have {tensors['latents'].shape[1]} channels, the layout is {layout}")
    if len(tensors["latents"]) < 2:
        raise UserError(f"{path}: needs at least 2 samples")
    return tensors, metadata
