"""Model folders, config.json and model.safetensors: of any network, read with errors that teach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin, constants, get_session
from torch import nn

from lwd.runtime.checkpoint import Content, Files, load_module

CONFIG, WEIGHTS = "config.json", "model.safetensors"

BUILT_WITH = "lwd_built_with"
"""The attribute in which a network that knows nothing of the Hub mixin carries its config.json."""


_SECONDS = 5
"""How long the Hub may take to answer at all."""


def unreachable() -> str | None:
    """Why the Hub cannot be reached, in one line; None where it answers. One request, so that nothing is tried again
    and again, with a warning each time, where there is no network."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=_SECONDS)
    except Exception as error:  # noqa: BLE001 - those of requests or of httpx, by the Hub library's version
        return f"{constants.ENDPOINT} cannot be reached: {' '.join(str(error).split()) or type(error).__name__}"[:200]
    return None


def save_model(model: nn.Module, folder: str | Path) -> None:
    """Write what `lwd.models.load_model` reads and, of a network of the Hub mixin, ``from_pretrained``."""
    Files(model_files(model, ".")).save(Path(folder))


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


def load_weights(model: nn.Module, folder: str | Path) -> None:
    """Fill ``model`` from a model folder."""
    load_module(model, Path(folder) / WEIGHTS)
