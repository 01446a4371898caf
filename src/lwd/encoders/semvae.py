"""SemVAE: the transformer VAE that makes semantic latents of an encoder's patch features (SFD, arXiv 2512.04926)."""

# No `from __future__ import annotations` here: the Hub mixin reads __init__'s annotations to decode config.json.

from pathlib import Path
from typing import Any, ClassVar

import yaml
from huggingface_hub import PyTorchModelHubMixin
from pydantic import ConfigDict
from torch import Tensor, nn

from lwd.encoders.posterior import LOGVAR_RANGE, Posterior
from lwd.errors import UserError
from lwd.records import Record, Size, read_record
from lwd.runtime.checkpoint import fill_module, load_module
from lwd.runtime.hub import CONFIG, WEIGHTS
from lwd.runtime.untrusted import load_foreign

HEADS = 8


class SemVAE(nn.Module, PyTorchModelHubMixin, library_name="lwd", tags=["lwd", "variational-autoencoder"]):
    """Features (N, D, h, w) <-> latents (N, k, h, w), every position a token; width D inside, any grid.

    Encoder and decoder are each a linear map, ``depth`` pre-norm transformer blocks (GELU MLP of ratio 4), LayerNorm
    and a linear map. There is no position embedding: permuting positions permutes the output. 29M parameters each at
    D = 768; named as in the released checkpoints, so that `load_released_semvae` needs no conversion.

    Raises ValueError for sizes that do not fit together.
    """

    def __init__(self, feature_dim: int, channels: int = 16, depth: int = 4, heads: int = HEADS) -> None:
        super().__init__()
        sizes = {"feature_dim": feature_dim, "channels": channels, "depth": depth, "heads": heads}
        if wrong := [name for name, size in sizes.items() if size < 1]:
            raise ValueError(f"{wrong[0]} must be at least 1, got {sizes[wrong[0]]}")
        if feature_dim % heads:
            raise ValueError(f"feature_dim {feature_dim} does not divide over {heads} heads")
        self.feature_dim, self.channels = feature_dim, channels
        self.encoder = _stack(feature_dim, feature_dim, 2 * channels, depth, heads)
        self.decoder = _stack(channels, feature_dim, feature_dim, depth, heads)

    def posterior(self, features: Tensor) -> Posterior:
        """Features (N, D, h, w) -> the posterior; the log-variance is clamped to `LOGVAR_RANGE`.

        Raises ValueError for another D than the model's.
        """
        if features.shape[1] != self.feature_dim:
            raise ValueError(f"a SemVAE of {self.feature_dim} dimensions, got features of {tuple(features.shape)}")
        mean, logvar = _on_grid(self.encoder, features).float().chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(*LOGVAR_RANGE))

    def encode(self, features: Tensor) -> Tensor:
        """Features (N, D, h, w) -> latents (N, k, h, w): the posterior's mean, a function of the image alone, and what
        the decoder reconstructs best from."""
        return self.posterior(features).mean

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, k, h, w) on the encoder's own scale -> features (N, D, h, w)."""
        return _on_grid(self.decoder, latents)


class _Block(nn.Module):
    """Pre-norm self-attention and MLP, each with a residual: (N, L, D) -> (N, L, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


def _stack(inputs: int, width: int, outputs: int, depth: int, heads: int) -> nn.Sequential:
    """(N, L, inputs) -> (N, L, outputs)."""
    blocks = (_Block(width, heads) for _ in range(depth))
    return nn.Sequential(nn.Linear(inputs, width), *blocks, nn.LayerNorm(width), nn.Linear(width, outputs))


def _on_grid(stack: nn.Sequential, x: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C', h, w), positions as tokens in row-major order."""
    y: Tensor = stack(x.flatten(2).transpose(1, 2))
    return y.transpose(1, 2).reshape(len(x), -1, *x.shape[2:])


class SemVAEConfig(Record):
    """config.json of a SemVAE: what it was built with."""

    model_config = ConfigDict(extra="forbid")

    what: ClassVar[str] = "a SemVAE's config"
    remedy: ClassVar[str] = "name the folder that `lwd semvae` wrote"

    feature_dim: Size
    channels: Size = 16
    depth: Size = 4
    heads: Size = HEADS


def load_semvae(folder: str | Path) -> SemVAE:
    """What `SemVAE.save_pretrained` wrote, in evaluation mode, on the CPU. Raises UserError for anything else."""
    folder = Path(folder)
    config = read_record(folder / CONFIG, SemVAEConfig)
    try:
        model = SemVAE(**config.model_dump())
    except ValueError as error:
        raise UserError(f"{folder / CONFIG}: not a SemVAE's config ({error})") from error
    load_module(model, folder / WEIGHTS)
    return model.eval()


def load_released_semvae(path: str | Path, heads: int | None = None) -> SemVAE:
    """A released ``.pt`` with ``model_state_dict`` (keys optionally prefixed ``module.``), in evaluation mode.

    D, k and depth follow from the shapes; the number of heads does not. None takes it from the training config that a
    checkpoint may hold as text, else `HEADS`. Raises UserError for the first key or shape that does not fit.
    """
    path = Path(path)
    payload = load_foreign(path)
    weights = payload.get("model_state_dict") if isinstance(payload, dict) else None
    if not isinstance(weights, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in weights.items()
    ):
        raise UserError(f"{path}: no 'model_state_dict' of tensors here; not a SemVAE checkpoint")
    if weights and all(key.startswith("module.") for key in weights):
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    first, last = (_matrix(path, weights, f"{half}.0.weight") for half in ("encoder", "decoder"))
    depth = sum(key.startswith("encoder.") and key.endswith(".attn.in_proj_weight") for key in weights)
    try:
        model = SemVAE(first.shape[1], last.shape[1], depth, heads or _heads_of(payload.get("config")) or HEADS)
    except ValueError as error:
        raise UserError(f"{path}: not a SemVAE checkpoint ({error})") from error
    fill_module(model, weights, str(path))
    return model.eval()


def _matrix(path: Path, weights: dict[str, Tensor], key: str) -> Tensor:
    if key not in weights or weights[key].ndim != 2:
        raise UserError(f"{path}: no matrix {key!r} here; not a SemVAE checkpoint")
    return weights[key]


def _heads_of(text: Any) -> int | None:
    """The number of heads in a checkpoint's config (YAML text), None where it does not say."""
    try:
        heads = yaml.safe_load(text)["model"]["params"]["transformer_heads"]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        return None
    return heads if isinstance(heads, int) else None
