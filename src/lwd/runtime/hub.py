"""Model folders, config.json and model.safetensors: of any network, read with errors that teach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from torch import nn

from lwd.runtime.checkpoint import Content, Files, load_module

CONFIG, WEIGHTS = "config.json", "model.safetensors"

BUILT_WITH = "lwd_built_with"
"""The attribute in which a network that knows nothing of the Hub mixin carries its config.json."""


def save_model(model: nn.Module, folder: Path) -> None:
    """Write what `lwd.models.load_model` reads and, of a network of the Hub mixin, ``from_pretrained``."""
    Files(model_files(model, ".")).save(folder)


def model_files(model: nn.Module, folder: str) -> dict[str, Content]:
    """The same files by name, for a checkpoint that is written later."""
    config = json.dumps(built_with(model), indent=2, sort_keys=True)
    return {f"{folder}/{CONFIG}": config, f"{folder}/{WEIGHTS}": model.state_dict()}


def built_with(model: nn.Module) -> dict[str, Any]:
    """config.json: what it carries along, what the Hub mixin noted, or else the name of its class alone."""
    carried: dict[str, Any] | None = getattr(model, BUILT_WITH, None)
    if carried is not None:
        return carried
    if isinstance(model, PyTorchModelHubMixin):
        return dict(model._hub_mixin_config)  # type: ignore[arg-type]
    return {"class": f"{type(model).__module__}.{type(model).__qualname__}"}


def load_weights(model: nn.Module, folder: Path) -> None:
    """Fill ``model`` from a model folder."""
    load_module(model, folder / WEIGHTS)
