"""Networks whose features stand for images, by name: Inception, DINOv2, and the classifier of built-in data sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from lwd.data.encoded import JUDGE, read_manifest
from lwd.encoders.decoder import load_classifier
from lwd.encoders.pretrained import fingerprint, library
from lwd.errors import UserError
from lwd.files import checksum
from lwd.images.sheets import to_unit
from lwd.metrics.checks import full_float32
from lwd.metrics.inception import SPATIAL_CHANNELS, FidInception, InceptionFeatures
from lwd.metrics.inception_weights import PUBLISHED_URL

DINOV2 = "facebook/dinov2-large"
_INPUT = 224
_MEAN_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Extractor(Protocol):
    """Images -> features, each image once through the network, in float32."""

    name: str
    identity: Mapping[str, Any]
    """What decides its numbers: weights, resize; recorded, and part of the cache's key."""
    widths: Mapping[str, int]
    """The columns of each kind of features; ``pool`` is the kind that distances are taken in."""

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """uint8 (n, 3, H, W) on the network's device -> kind -> (n, width) float32."""


class InceptionExtractor:
    """`lwd.metrics.FidInception`: ``pool`` (n, 2048), ``spatial`` (n, 2023), ``logits``.

    ``weights``: the published file, None: in its cache, or fetched with ``download``. ``section``: of the settings that
    a refusal names. Raises UserError where there are none, and unless ``allow_other`` for others than the published.
    """

    name = "inception"

    def __init__(
        self,
        weights: str | Path | None,
        device: torch.device,
        download: bool = False,
        allow_other: bool = False,
        section: str = "evaluate",
    ) -> None:
        self._network = FidInception.published(weights, download, section).to(device)
        if not self._network.is_published and not allow_other:
            raise UserError(
                f"{weights}: not the published Inception weights, so its numbers are no FID; fetch "
                f"{PUBLISHED_URL}, or go on with {section}.allow_other_weights=true"
            )
        self.identity: Mapping[str, Any] = {
            "name": self.name,
            "weights_sha256": self._network.sha256,
            "published_weights": self._network.is_published,
            "resize": "tensorflow-1 bilinear to 299",
        }
        self.widths: Mapping[str, int] = {
            "pool": 2048,
            "spatial": SPATIAL_CHANNELS * 17 * 17,
            "logits": self._network.fc.out_features,
        }

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """See `Extractor`."""
        features: InceptionFeatures = self._network(images)
        return features._asdict()


class JudgeExtractor:
    """The small classifier that `lwd encode` leaves beside labelled data: ``pool``, ``logits``.

    Raises UserError for data without one.
    """

    name = "judge"

    def __init__(self, folder: str | Path, device: torch.device) -> None:
        folder = Path(folder)
        settings = read_manifest(folder).judge
        if settings is None:
            raise UserError(
                f"{folder}: was encoded without a judge (encode.judge=true makes one where there are classes); ask for "
                "evaluate.metrics=[fid, kid], which need Inception's weights, or name the real images with --reference"
            )
        self._judge, self._device = load_classifier(folder).to(device), device
        self._channels = settings.image_channels
        self.identity: Mapping[str, Any] = {"name": self.name, "weights_sha256": checksum(folder / JUDGE)}
        self.widths: Mapping[str, int] = {"pool": settings.channels, "logits": settings.classes}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """See `Extractor`."""
        with full_float32(self._device):
            pool = self._judge.pooled(to_unit(images[:, : self._channels]))
            return {"pool": pool, "logits": self._judge.head(pool)}


class DinoExtractor:
    """DINOv2's class token after the last norm: ``pool``.

    As Stein et al. (2023, arXiv 2306.04675) and their `dgm-eval`: ViT-L/14 without registers, images resized to 224
    bicubically with antialiasing and rounded to 8 bits (as PIL does, up to one level), ImageNet's mean and deviation.
    ``folder``: transformers' model (config.json, model.safetensors); other sizes and the variant with registers are
    read too, but give other numbers than the published ones.

    Raises UserError for no folder, and for one of anything else.
    """

    name = "dinov2"

    def __init__(self, folder: str | Path | None, device: torch.device, section: str = "evaluate") -> None:
        if folder is None or not (Path(folder) / "config.json").is_file():
            where = "no folder named" if folder is None else f"{folder}: no config.json there"
            raise UserError(f"{where}; download https://huggingface.co/{DINOV2} and set {section}.dinov2=FOLDER")
        try:
            model = library("transformers", "AutoModel").from_pretrained(
                folder, local_files_only=True, dtype=torch.float32
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise UserError(f"{folder}: cannot be read as DINOv2 ({' '.join(str(error).split())})") from error
        if not model.config.model_type.startswith("dinov2"):
            raise UserError(f"{folder}: holds a {model.config.model_type!r}, no DINOv2")
        self._model, self._device = model.eval().requires_grad_(False).to(device), device
        self.widths: Mapping[str, int] = {"pool": int(model.config.hidden_size)}
        self.identity: Mapping[str, Any] = {
            "name": self.name,
            "weights_sha256": fingerprint(model),
            "architecture": f"{model.config.model_type}, width {model.config.hidden_size}, "
            f"depth {model.config.num_hidden_layers}",
            "resize": "bicubic, antialiased, to 224",
        }

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """See `Extractor`."""
        with full_float32(self._device):
            size = (_INPUT, _INPUT)
            x = F.interpolate(images.float(), size, mode="bicubic", antialias=True).round().clamp(0, 255) / 255
            mean, std = (torch.tensor(values, device=x.device)[:, None, None] for values in _MEAN_STD)
            return {"pool": self._model((x - mean) / std).last_hidden_state[:, 0]}
