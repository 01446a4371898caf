"""Any image autoencoder that diffusers publishes, with the scale and shift that its config gives its latents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from lwd.encoders.pretrained import fetch, fingerprint, library, read_as
from lwd.encoders.vae import keys
from lwd.errors import UserError
from lwd.records import read_mapping

DIFFUSERS = "diffusers"
CLASSES = {
    "AutoencoderKL": "f8d4, f16d32, FLUX",
    "AutoencoderDC": "DC-AE, SANA",
    "AutoencoderTiny": "TAESD",
}
"""Of diffusers, by the ``_class_name`` in a folder's config, with some that are published."""

_SCALE, _SHIFT = "scaling_factor", "shift_factor"
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
CHECKPOINTS = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")
REMEDY = "download it on a machine with a network, and give the path of the file or folder here instead of the Hub id"


class Autoencoder:
    """A `TextureEncoder`: images (N, c, f h, f w) in [-1, 1] <-> latents (N, C, h, w), through a diffusers ``model``.

    Latents are what the model's encoder gives (of a posterior the mean; of quantisation and noise nothing), less its
    config's ``shift_factor`` and times its ``scaling_factor`` (`scaling`), as its own diffusion models see them;
    `decode` undoes both. Weights and arithmetic are in the model's dtype, results always float32. Raises UserError for
    a scale or shift that is no number.
    """

    name: ClassVar[str] = ""

    def __init__(self, model: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        config = model.config
        levels = config["block_out_channels" if "block_out_channels" in config else "encoder_block_out_channels"]
        self.factor: int = 2 ** (len(levels) - 1)
        self.channels, self.image_channels = int(config["latent_channels"]), int(config["in_channels"])
        scale, shift = config.get(_SCALE), config.get(_SHIFT)
        self.scale, self.shift = 1.0 if scale is None else scale, 0.0 if shift is None else shift
        if not all(isinstance(x, int | float) and math.isfinite(x) for x in (self.scale, self.shift)) or not self.scale:
            raise UserError(f"{self._called}: scaling_factor {scale!r} and shift_factor {shift!r} must be numbers")

    @property
    def _called(self) -> str:
        return self.name or type(self.model).__name__

    @classmethod
    def load(
        cls, source: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> Autoencoder:
        """From a diffusers folder (config.json, safetensors) or the Hub: ``owner/name`` or ``owner/name/subfolder``.

        A local path never touches the network. Raises UserError for whatever is missing, damaged, or of no class in
        `CLASSES`.
        """
        folder = resolve(source)
        if not folder.is_dir() or not (folder / CONFIG).is_file():
            raise UserError(f"{folder}: not a diffusers folder ({CONFIG} is missing)")
        return Autoencoder(read_model(folder).to(device, dtype))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images (N, c, f h, f w) in [-1, 1] -> latents (N, C, h, w), scaled and shifted.

        Raises ValueError for other shapes and where the factor f divides H or W not.
        """
        c, f = self.image_channels, self.factor
        if images.ndim != 4 or images.shape[1] != c or images.shape[2] % f or images.shape[3] % f:
            raise ValueError(f"{self._called} encodes (N, {c}, {f} h, {f} w), got {tuple(images.shape)}")
        found = self.model.encode(images.to(self.model.device, self.model.dtype))
        if hasattr(found, "latent_dist"):
            latents: Tensor = found.latent_dist.mean
        else:
            latents = found.latent if hasattr(found, "latent") else found.latents
        return (latents.float() - self.shift) * self.scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, C, h, w) as `encode` gives them -> images (N, c, f h, f w), about [-1, 1], not clipped."""
        if latents.ndim != 4 or latents.shape[1] != self.channels:
            raise ValueError(f"{self._called} decodes (N, {self.channels}, h, w), got {tuple(latents.shape)}")
        plain = latents.float() / self.scale + self.shift
        images: Tensor = self.model.decode(plain.to(self.model.device, self.model.dtype)).sample
        return images.float()

    def facts(self) -> dict[str, Any]:
        """For manifests."""
        return {
            "class": type(self.model).__name__,
            "factor": self.factor,
            "channels": self.channels,
            "image_channels": self.image_channels,
            "scale": self.scale,
            "shift": self.shift,
        }

    def scaled(self, scale: float, shift: float) -> Self:
        """The same weights under another scale and shift, which the model's config then says, too."""
        self.model.register_to_config(**{_SCALE: scale, _SHIFT: shift})
        return type(self)(self.model)

    def fingerprint(self) -> str:
        """sha256 of the weights, for manifests."""
        return fingerprint(self.model)


def blank_autoencoder(source: str | Path) -> Autoencoder:
    """The architecture of a diffusers folder or Hub id without weights, on the meta device: to count its operations.

    Reads config.json alone. Raises UserError where there is none, and as `read_model`.
    """
    folder = resolve(source, weights=False)
    config, kind = read_config(folder)
    with torch.device("meta"), read_as(folder, kind):
        return Autoencoder(library("diffusers", kind).from_config({**config, **scaling(config)}))


def resolve(source: str | Path, weights: bool = True) -> Path:
    """The local file or folder of a path or a Hub id, ``owner/name``, ``owner/name/subfolder`` or
    ``owner/name/file.ckpt``; of a folder of the Hub without ``weights`` the config alone is fetched. Raises UserError
    where there is none."""
    path = Path(source).expanduser()
    if path.exists():
        return path
    if (named := hub_file(source)) is None:
        raise UserError(f"{source}: no such file or folder, nor a Hub id (owner/name or owner/name/file.ckpt)")
    repo, rest = named
    if path.suffix in CHECKPOINTS:
        return fetch(repo, [rest], REMEDY)
    under = f"{rest}/" if rest else ""
    config = fetch(repo, [under + CONFIG], REMEDY)
    return fetch(repo, [under + WEIGHTS], REMEDY).parent if weights else config.parent


def hub_file(source: str | Path) -> tuple[str, str] | None:
    """``owner/name`` and the rest of what may be a Hub id as `resolve` takes it; None of what can only be a path."""
    parts, path = str(source).split("/"), Path(source).expanduser()
    least = 3 if path.suffix in CHECKPOINTS else 2
    local = isinstance(source, Path) or path.is_absolute() or parts[0] in ("", ".", "..", "~")
    return None if local or len(parts) < least else ("/".join(parts[:2]), "/".join(parts[2:]))


def read_settings(folder: Path) -> dict[str, Any]:
    """What config.json in a diffusers folder says; raises UserError where it is missing or malformed."""
    return read_mapping(folder / CONFIG, "the config of a diffusers model", "name the folder of an autoencoder")


def read_config(folder: Path) -> tuple[dict[str, Any], str]:
    """The same, and the class; raises UserError for one that is not in `CLASSES`, too."""
    config = read_settings(folder)
    kind = config.get("_class_name")
    if not isinstance(kind, str) or kind not in CLASSES:
        known = ", ".join(f"{name} ({some})" for name, some in CLASSES.items())
        raise UserError(f"{folder / CONFIG}: _class_name {kind!r} is not supported; known: {known}")
    return config, kind


def scaling(config: Mapping[str, Any]) -> dict[str, Any]:
    """The scale and shift that latents of a model with this config.json get, by whatever name it is encoded or decoded;
    nothing where its class in diffusers decides.

    What the file says counts. Where it says nothing that class takes every `AutoencoderKL` for Stable Diffusion's, of
    scale 0.18215; SD-VAE f16d32 is none of these and has neither.
    """
    said = {key: config[key] for key in (_SCALE, _SHIFT) if key in config}
    sizes = {key: list(value) if isinstance(value, tuple) else value for key, value in keys.CONFIG.items()}
    f16d32 = all(config.get(key) == sizes[key] for key in keys.SIZES)
    return {_SCALE: sizes[_SCALE], **said} if f16d32 else said


def read_model(folder: Path) -> Any:
    """diffusers' model in a folder; raises UserError for another class, weights missing, or no safetensors."""
    config, kind = read_config(folder)
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder}: not a diffusers folder ({WEIGHTS} is missing)")
    with read_as(folder, kind):
        model, report = library("diffusers", kind).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **scaling(config)
        )
    if missing := sorted(report["missing_keys"]):
        raise UserError(f"{folder}: weight {missing[0]!r} is missing; not the weights of its {CONFIG}")
    return model
