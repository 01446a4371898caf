"""Low-rank adapters (LoRA; Hu et al. 2021) in a network's linear layers, by the library peft."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lwd.errors import UserError
from lwd.runtime.checkpoint import Content, check_tensors, load_tensors
from lwd.runtime.hub import CONFIG, WEIGHTS, built_with

ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
"""Names and contents as `peft.PeftModel.from_pretrained` reads them."""
_PREFIX = "base_model.model."
_NAME = "default"


def add_adapters(model: nn.Module, rank: int, alpha: int, targets: Sequence[str]) -> int:
    """Freeze ``model`` and add to the linear layers that match a pattern W x + (alpha / rank) B A x, B zero at first.

    Returns how many layers. A is drawn from torch's global generator. Raises UserError for a pattern that matches no
    linear layer, and where peft is not installed.
    """
    try:
        import peft  # an extra
    except ImportError as error:
        raise UserError("train.lora: needs peft; install it with pip install 'lwd[lora]'") from error

    linear = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    for pattern in targets:
        if not any(fnmatchcase(name, pattern) for name in linear):
            near = ", ".join(difflib.get_close_matches(pattern, linear, n=3, cutoff=0.0)) or "none"
            raise UserError(f"train.lora.targets: {pattern!r} matches no linear layer; the nearest are {near}")
    chosen = [name for name in linear if any(fnmatchcase(name, pattern) for pattern in targets)]
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=chosen)
    peft.inject_adapter_in_model(config, model, _NAME)
    return len(chosen)


def has_adapters(model: nn.Module) -> bool:
    """Whether `add_adapters` was here."""
    return hasattr(model, "peft_config")


@torch.no_grad()
def merged(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of the network without adapters that computes the same: W + (alpha / rank) B A."""
    deltas = {f"{name}.weight": layer.get_delta_weight(_NAME) for name, layer in _layers(model)}
    plain = {name.replace(".base_layer.", "."): t for name, t in model.state_dict().items() if ".lora_" not in name}
    return {name: tensor + deltas[name] if name in deltas else tensor for name, tensor in plain.items()}


def adapted_files(model: nn.Module, folder: str) -> dict[str, Content]:
    """A model folder of the merged network, and the adapters apart."""
    return {
        f"{folder}/{CONFIG}": json.dumps(built_with(model), indent=2, sort_keys=True),
        f"{folder}/{WEIGHTS}": merged(model),
        f"{folder}/{ADAPTER}": {f"{_PREFIX}{name}": tensor for name, tensor in _adapters(model).items()},
        f"{folder}/{ADAPTER_CONFIG}": json.dumps(_config(model), indent=2, sort_keys=True),
    }


def load_adapters(model: nn.Module, folder: Path) -> None:
    """Fill the adapters from what `adapted_files` wrote. Raises UserError for those of other layers or another rank."""
    own, given = _adapters(model), load_tensors(folder / ADAPTER)
    check_tensors(given, {f"{_PREFIX}{name}": tensor for name, tensor in own.items()}, str(folder / ADAPTER))
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(given[f"{_PREFIX}{name}"])


def _layers(model: nn.Module) -> list[tuple[str, Any]]:
    return [(name, layer) for name, layer in model.named_modules() if hasattr(layer, "get_delta_weight")]


def _adapters(model: nn.Module) -> dict[str, Tensor]:
    """A and B of every layer, by peft's names."""
    state = model.state_dict()
    return {name.replace(f".{_NAME}.", "."): tensor for name, tensor in state.items() if ".lora_" in name}


def _config(model: nn.Module) -> dict[str, Any]:
    settings: Any = model.peft_config
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in settings[_NAME].to_dict().items()}
    return plain | {"peft_type": "LORA", "inference_mode": True}
