"""Model folders, config.json and model.safetensors: written by the Hub mixin, read with errors that teach."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import PyTorchModelHubMixin
from torch import nn

from lwd.runtime.checkpoint import Content, Files, load_module

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_model(model: PyTorchModelHubMixin, folder: Path) -> None:
    """Write what ``from_pretrained`` and `load_model` read."""
    Files(model_files(model, ".")).save(folder)


def model_files(model: PyTorchModelHubMixin, folder: str) -> dict[str, Content]:
    """The same files by name, for a checkpoint that is written later; ``model`` is any network of the Hub mixin."""
    config = json.dumps(model._hub_mixin_config, indent=2, sort_keys=True)
    assert isinstance(model, nn.Module)
    return {f"{folder}/{CONFIG}": config, f"{folder}/{WEIGHTS}": model.state_dict()}


def load_weights(model: nn.Module, folder: Path) -> None:
    """Fill ``model`` from a model folder."""
    load_module(model, folder / WEIGHTS)
