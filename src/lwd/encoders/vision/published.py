"""DINOv2 with registers and CLIP by name, prepared as for the released latents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lwd.encoders.pretrained import fetch, fingerprint, library
from lwd.encoders.vision.folder import CONFIG, WEIGHTS, cut_at_layer, readable_as, with_weights
from lwd.encoders.vision.pixels import CLIP, IMAGENET, normalised, unit_pixels
from lwd.errors import UserError
from lwd.runtime.seeding import Stream, seeded

CROP, GRID = 256, 16  # pixels of one crop, and the patch grid that its features come on
_INPUT = 224  # 7/8 of a crop


@dataclass(frozen=True)
class VisionModel:
    """One pretrained vision transformer: where it is published and what it must look like."""

    repo: str
    kind: Literal["dinov2", "clip"]
    width: int
    depth: int
    heads: int
    patch: int


VISION_MODELS = {
    "dinov2-s": VisionModel("facebook/dinov2-with-registers-small", "dinov2", 384, 12, 6, 14),
    "dinov2-b": VisionModel("facebook/dinov2-with-registers-base", "dinov2", 768, 12, 12, 14),
    "dinov2-l": VisionModel("facebook/dinov2-with-registers-large", "dinov2", 1024, 24, 16, 14),
    "dinov2-g": VisionModel("facebook/dinov2-with-registers-giant", "dinov2", 1536, 40, 24, 14),
    "clip-b16": VisionModel("openai/clip-vit-base-patch16", "clip", 768, 12, 12, 16),
    "clip-l14": VisionModel("openai/clip-vit-large-patch14", "clip", 1024, 24, 16, 14),
}
"""By the name that ``encode.semantic.encoder`` takes."""

_MEAN_STD = {"dinov2": IMAGENET, "clip": CLIP}
_CLASSES = {
    "dinov2": ("Dinov2WithRegistersConfig", "Dinov2WithRegistersModel"),
    "clip": ("CLIPVisionConfig", "CLIPVisionModel"),
}
_SHAPING = (  # what of a folder's config must be as published; the rest changes no result
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "patch_size",
    "image_size",
    "intermediate_size",
    "num_register_tokens",
    "use_swiglu_ffn",
    "hidden_act",
    "layer_norm_eps",
)


class PatchEncoder:
    """Images (N, 3, 256 k, 256 k), uint8 or in [-1, 1] -> patch features (N, D, 16 k, 16 k), float32.

    Each 256-pixel crop is resized to 224 and normalised with the network's own mean and standard deviation; larger
    images are cut into crops, whose features are laid side by side. The class token and the registers are dropped.

    - Resize: ``interpolate(mode="bicubic")`` without antialiasing and without clipping, as REPA's public training code
      does (https://github.com/sihyun-yu/REPA, ``preprocess_raw_image``), so that features match those of the released
      shards; Pillow's resize, which transformers' image processors use, filters and therefore differs a little.
    - DINOv2: the final layer norm is applied (``x_norm_patchtokens`` of the original code).
    - CLIP: the last block's output, without the post-layernorm. CLIP trains that norm on the class token alone, never
      on patch tokens; REPA's ``UpdatedVisionTransformer`` and transformers' ``last_hidden_state`` leave it out too.
    - B/16's 14x14 tokens are interpolated bilinearly to 16x16; patches of 14 give 16x16 as they are.
    """

    def __init__(self, model: Any, name: str) -> None:
        self.name = name
        self.spec = vision_model(name)
        self.width = self.spec.width
        self.model = model.eval().requires_grad_(False)
        self._dropped = 1 + getattr(model.config, "num_register_tokens", 0)

    @torch.no_grad()
    def patch_features(self, images: Tensor) -> Tensor:
        """Images (N, 3, 256 k, 256 k), uint8 or in [-1, 1] -> features (N, D, 16 k, 16 k), float32.

        Raises ValueError for other shapes and for integers other than uint8.
        """
        n, count = len(images), images.shape[-1] // CROP
        if images.ndim != 4 or images.shape[1:] != (3, count * CROP, count * CROP) or not count:
            raise ValueError(f"{self.name} takes images (N, 3, 256 k, 256 k), got {tuple(images.shape)}")
        crops = images.reshape(n, 3, count, CROP, count, CROP).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
        hidden: Tensor = (
            self.model(self.preprocess(crops).to(self.model.dtype)).last_hidden_state[:, self._dropped :].float()
        )
        side = _INPUT // self.spec.patch
        features = hidden.transpose(1, 2).reshape(-1, self.width, side, side)  # (N k k, D, side, side)
        if side != GRID:
            features = F.interpolate(features, size=(GRID, GRID), mode="bilinear", align_corners=False)
        tiles = features.reshape(n, count, count, self.width, GRID, GRID).permute(0, 3, 1, 4, 2, 5)
        return tiles.reshape(n, self.width, count * GRID, count * GRID)

    def preprocess(self, crops: Tensor) -> Tensor:
        """Crops (N, 3, 256, 256), uint8 or in [-1, 1] -> the network's input (N, 3, 224, 224), float32."""
        pixels = unit_pixels(crops, self.model.device)
        pixels = F.interpolate(pixels, size=(_INPUT, _INPUT), mode="bicubic", align_corners=False)
        return normalised(pixels, *_MEAN_STD[self.spec.kind])

    def fingerprint(self) -> str:
        """sha256 of the weights, for manifests."""
        return fingerprint(self.model)


def vision_model(name: str) -> VisionModel:
    """The registry's entry; raises UserError for an unknown name."""
    if name not in VISION_MODELS:
        raise UserError(f"unknown vision model {name!r}; known: {', '.join(VISION_MODELS)}")
    return VISION_MODELS[name]


def load_patch_encoder(
    name: str,
    path: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    layer: int | None = None,
) -> PatchEncoder:
    """A pretrained encoder of `VISION_MODELS`, from a local folder (config.json and weights) or else from the Hub.

    A local path never touches the network. With ``layer`` its features are those after that block (`cut_at_layer`).
    Raises UserError for an unknown name, a missing, damaged or foreign folder, a layer that there is not, and where the
    Hub is out of reach and its cache has no copy.
    """
    spec = vision_model(name)
    folder = _download(spec) if path is None else Path(path)
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder}: no folder with a config.json; download {spec.repo} there")
    model = _from_folder(name, folder, layer)
    return PatchEncoder(model.to(device, dtype), name)


def random_patch_encoder(name: str, seed: int = 0) -> PatchEncoder:
    """The architecture with random weights, float32 on the CPU: for tests and benchmarks."""
    config = architecture(name)
    with seeded(Stream.INITIALISE, seed):
        return PatchEncoder(library("transformers", _CLASSES[vision_model(name).kind][1])(config), name)


def blank_patch_encoder(name: str) -> PatchEncoder:
    """The architecture without weights, on the meta device: to count its operations."""
    with torch.device("meta"):
        return PatchEncoder(library("transformers", _CLASSES[vision_model(name).kind][1])(architecture(name)), name)


def architecture(name: str) -> Any:
    """The transformers config of a model of `VISION_MODELS`, as published."""
    spec = vision_model(name)
    fields = {
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "patch_size": spec.patch,
    }
    if spec.kind == "dinov2":
        fields |= {"image_size": 518, "num_register_tokens": 4, "use_swiglu_ffn": name == "dinov2-g"}
    else:
        fields |= {"image_size": _INPUT, "intermediate_size": 4 * spec.width}
    return library("transformers", _CLASSES[spec.kind][0])(**fields)


def _download(spec: VisionModel) -> Path:
    remedy = f"download {spec.repo} on a machine with a network, and give its folder as this encoder's path"
    config = fetch(spec.repo, [CONFIG], remedy)
    fetch(spec.repo, WEIGHTS, remedy)
    return config.parent


def _from_folder(name: str, folder: Path, layer: int | None) -> Any:
    """transformers' model of a local folder, refused where it is another architecture or weights are missing."""
    config_class, model_class = (library("transformers", member) for member in _CLASSES[vision_model(name).kind])
    with readable_as(folder, name):
        config = config_class.from_pretrained(folder, local_files_only=True)
    wanted = architecture(name).to_dict()
    for key in _SHAPING:
        if key in wanted and getattr(config, key, None) != wanted[key]:
            found = getattr(config, key, None)
            raise UserError(f"{folder / CONFIG}: {key} is {found}, {name} has {wanted[key]}")
    cut_at_layer(config, layer, folder)
    return with_weights(model_class, folder, config, name)
