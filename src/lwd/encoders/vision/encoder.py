"""Patch features of any published vision transformer of `FAMILIES`, on the grid of the other groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lwd.encoders.pretrained import fetch, fingerprint, hub_id, library
from lwd.encoders.vision.families import FAMILIES, Family
from lwd.encoders.vision.folder import CONFIG, WEIGHTS, cut_at_layer, readable_as, with_weights
from lwd.encoders.vision.pixels import PREPROCESSOR, Preprocessing, read_preprocessing
from lwd.errors import UserError
from lwd.records import read_mapping


class Plan(NamedTuple):
    """How images of one size become features: ``pixels`` and ``tokens`` along a side of the model's input, and the
    ``grid`` of the features along a side."""

    pixels: int
    tokens: int
    grid: int

    @property
    def to_grid(self) -> str:
        """How tokens come onto the grid."""
        if self.tokens == self.grid:
            return "as they are"
        return "adaptive average" if self.tokens > self.grid else "bilinear"


class TransformersEncoder:
    """Images (N, 1 or 3, f s, f s), uint8 or in [-1, 1] -> patch features (N, D, s, s), float32; f is ``factor``.

    The whole image is resized to the model's input and normalised (`Preprocessing`). The input is so large that each
    position of the grid gets one patch, where the family was trained at many sizes, else as large as the model's own;
    ``resolution`` pixels where that is given, with positions interpolated. Tokens that lie on another grid than the one
    wanted are averaged (adaptive_avg_pool2d) where they are more, and interpolated bilinearly where they are fewer.

    Class tokens and registers are dropped. Features are the last layer's after the model's final norm, but CLIP's,
    which has none for patches (see `PatchEncoder`). A model that was cut at an earlier layer (`cut_at_layer`) has the
    same norm behind that one, as DINOv2's ``get_intermediate_layers(norm=True)``.

    Raises ValueError where ``resolution`` is no multiple of the model's patch.
    """

    def __init__(
        self, model: Any, family: Family, preprocessing: Preprocessing, factor: int, resolution: int | None = None
    ) -> None:
        self.model, self.family = model.eval().requires_grad_(False), family
        self.preprocessing, self.factor = preprocessing, factor
        self.patch, self.width = int(model.config.patch_size), int(model.config.hidden_size)
        if resolution is not None and resolution % self.patch:
            raise ValueError(f"resolution {resolution} is no multiple of the patch of {self.patch} pixels")
        self.resolution = resolution

    def plan(self, size: int) -> Plan:
        """For images of ``size`` pixels. Raises ValueError where the factor divides them not."""
        if size % self.factor:
            raise ValueError(f"factor {self.factor} does not divide images of {size} pixels")
        grid = size // self.factor
        own = self.patch * grid if self.family.resizes else self.model.config.image_size
        pixels = own if self.resolution is None else self.resolution
        return Plan(pixels, pixels // self.patch, grid)

    @torch.no_grad()
    def patch_features(self, images: Tensor) -> Tensor:
        """Images (N, 1 or 3, f s, f s), uint8 or in [-1, 1] -> features (N, D, s, s), float32.

        Raises ValueError for other shapes and for integers other than uint8.
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape[2] != images.shape[3]:
            raise ValueError(f"{self.family.title} takes images (N, 1 or 3, H, H), got {tuple(images.shape)}")
        plan = self.plan(images.shape[-1])
        tokens = self.family.tokens(self.model, self.preprocessing(images, plan.pixels, self.model.device))
        features = tokens.transpose(1, 2).reshape(len(images), self.width, plan.tokens, plan.tokens)
        if plan.tokens > plan.grid:
            return F.adaptive_avg_pool2d(features, plan.grid)
        if plan.tokens < plan.grid:
            return F.interpolate(features, (plan.grid, plan.grid), mode="bilinear", align_corners=False)
        return features

    def facts(self, size: int) -> dict[str, Any]:
        """For manifests: how images of ``size`` pixels became features."""
        return {
            "model_type": self.model.config.model_type,
            "preprocessing": self.preprocessing.facts(),
            **self.plan(size)._asdict(),
            "to_grid": self.plan(size).to_grid,
            "patch": self.patch,
            "width": self.width,
            "layers": self.model.config.num_hidden_layers,
            "final_norm": self.family.norm is not None,
        }

    def fingerprint(self) -> str:
        """sha256 of the weights that are used, for manifests."""
        return fingerprint(self.model)


def load_transformers_encoder(
    source: str | Path,
    factor: int,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    layer: int | None = None,
    resolution: int | None = None,
) -> TransformersEncoder:
    """An encoder from a folder as transformers writes it (config.json, weights, preprocessor_config.json) or a Hub id.

    Code that a folder holds is never run. Raises UserError for a missing or damaged folder, a model of no family in
    `FAMILIES`, a layer that it has not, a resolution that is no multiple of its patch, and where the Hub is out of
    reach and its cache has no copy.
    """
    folder = _folder(source)
    found = read_mapping(folder / CONFIG, "the config of a transformers model", "name the folder of one")
    tower = found.get("vision_config", found)  # of a model with a text tower beside
    kind = tower.get("model_type") if isinstance(tower, dict) else None
    if isinstance(tower, dict) and kind is None and tower is not found:
        kind = f"{found.get('model_type')}_vision_model"  # old files leave it out
    if not isinstance(kind, str) or kind not in FAMILIES:
        known = ", ".join(family.title for family in FAMILIES.values())
        raise UserError(f"{folder / CONFIG}: model_type {kind!r} is not supported; known: {known}")
    family = FAMILIES[kind]
    with readable_as(folder, family.title):
        whole = library("transformers", "AutoConfig").from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    config = getattr(whole, "vision_config", whole)
    for key in ("patch_size", "image_size"):
        if not isinstance(getattr(config, key, 1), int):
            raise UserError(
                f"{folder / CONFIG}: {key} is {getattr(config, key)!r}; only square ones, one number, are known"
            )
    for key, value in family.changes:
        setattr(config, key, value)
    cut_at_layer(config, layer, folder)
    model = with_weights(library("transformers", "AutoModel"), folder, config, family.title)
    preprocessing = read_preprocessing(folder, family.default)
    try:
        return TransformersEncoder(model.to(device, dtype), family, preprocessing, factor, resolution)
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from error


def _folder(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise UserError(f"{path}: no {CONFIG} there; name the folder of a transformers model")
        return path
    repo = hub_id(source)
    if repo is None:
        raise UserError(f"{source}: no such folder, nor a Hub id (owner/name)")
    remedy = f"download {repo} on a machine with a network, and give its folder here"
    fetch(repo, [PREPROCESSOR, CONFIG], remedy)  # first: of a cached copy without one, the config is found instead
    fetch(repo, WEIGHTS, remedy)
    return fetch(repo, [CONFIG], remedy).parent
