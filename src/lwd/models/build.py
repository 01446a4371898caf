"""Networks of any kind, built by name and checked before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lwd.errors import UserError
from lwd.flow.grids import MOST_AXES
from lwd.groups import Layout
from lwd.models.network import device_of, dropper, evaluating, null_label, token_grid
from lwd.models.record import record_of, write_record
from lwd.models.registry import check_arguments, find_builder
from lwd.runtime.hub import BUILT_WITH

GIVEN = ("layout", "shape", "num_classes", "feature_dim")
"""What a builder gets beside the user's settings."""


def build_network(
    name: str,
    layout: Layout,
    shape: tuple[int, ...],
    num_classes: int,
    settings: Mapping[str, Any],
    feature_dim: int | None = None,
) -> nn.Module:
    """What is registered as ``name``, or what the path ``module:attribute`` builds, with the ``settings`` given to it.

    ``shape``: the latents' trailing axes, (H, W) of images. ``feature_dim`` is handed on only where there is one. The
    network carries along what it was built with, for config.json. Raises UserError for what cannot be built.
    """
    build = find_builder(name)
    given: dict[str, Any] = {"layout": layout, "shape": shape, "num_classes": num_classes}
    given |= {} if feature_dim is None else {"feature_dim": feature_dim}
    check_arguments(name, build, GIVEN, given, settings)
    try:
        network = build(**given, **settings)
    except ValueError as error:
        raise UserError(f"model: {error}") from error
    except TypeError as error:  # by **settings handed on to something that does not know one of them
        if "unexpected keyword argument" not in str(error) or not any(f"'{key}'" in str(error) for key in settings):
            raise
        raise UserError(f"model: {name!r}: {error}") from error
    if not isinstance(network, nn.Module):
        raise UserError(f"model.name: {name!r} builds {type(network).__name__}, which is no torch.nn.Module")
    if next(network.parameters(), None) is None:
        raise UserError(f"model.name: {name!r} builds a network without parameters; nothing would learn")
    setattr(network, BUILT_WITH, write_record(name, {**given, **settings}))
    return network


def check_network(
    network: nn.Module,
    feature_dim: int | None = None,
    label_dropout: float = 0.0,
    feature_grid: tuple[int, ...] = (),
) -> None:
    """Raise UserError where two samples through the network show that it cannot be trained as the config says.

    ``feature_dim`` and ``feature_grid``: of the REPA features. LightningDiT is known to fit, but for their grid. Run
    where the network lies; it and torch's generators stay as they were.
    """
    record = record_of(network)
    if feature_dim is not None:
        _check_grid(network, feature_grid)
    if record.network is None:
        return
    where, null, device = f"model.name: {record.network!r}", null_label(network), device_of(network)
    if label_dropout and dropper(network) is None:
        raise UserError(f"{where} has no null_label and no drop(); give it one, or set label_dropout=0")
    z = torch.zeros(2, *record.sample_shape, device=device)
    times = torch.full((2, len(record.layout.names)), 0.5, device=device)
    labels = torch.tensor([0, record.num_classes - 1 if null is None else null], device=device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), evaluating(network):
        out = network(z, times, labels) if feature_dim is None else network(z, times, labels, project=True)
    v, features = out if feature_dim is not None and isinstance(out, tuple) and len(out) == 2 else (out, None)
    if feature_dim is not None and (features is None or features.shape[-1] != feature_dim):
        raise UserError(f"{where}: project=True must give (v, features of {feature_dim}); or set repa_weight=0")
    tokens = math.prod(token_grid(network) or feature_grid)
    if features is not None and tuple(features.shape[:2]) != (len(z), tokens):
        raise UserError(
            f"{where}: project=True gives features {tuple(features.shape)} for {len(z)} samples of {tokens} tokens; "
            "give the network a token_grid that says where they lie, or set repa_weight=0"
        )
    if not isinstance(v, torch.Tensor) or v.shape != z.shape:
        got = tuple(v.shape) if isinstance(v, torch.Tensor) else type(v).__name__
        raise UserError(f"{where} gives {got} for latents of shape {tuple(z.shape)}; it must give velocities like them")
    _check_gradients(network, v.sum() if features is None else v.sum() + features.sum(), where)


def _check_grid(network: nn.Module, feature_grid: tuple[int, ...]) -> None:
    """Raise UserError where REPA features cannot be brought to the network's tokens by `lwd.flow.on_grid`."""
    tokens = token_grid(network)
    if tokens in (None, feature_grid) or (len(tokens) == len(feature_grid) and 0 < len(tokens) <= MOST_AXES):
        return
    raise UserError(
        f"train.repa_weight: the REPA features in the shards lie on a grid {feature_grid}, the network's tokens on "
        f"{tokens}; encode others (encode.repa.encoder), choose another model.name, or set train.repa_weight=0"
    )


def _check_gradients(network: nn.Module, total: Tensor, where: str) -> None:
    """Raise UserError for a parameter on which ``total`` does not depend: DDP would wait for its gradient."""
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    if not trained:
        raise UserError(f"{where} has no parameter that requires a gradient; nothing would learn")
    gradients = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
    if unused := [name for name, gradient in zip(trained, gradients, strict=True) if gradient is None]:
        raise UserError(f"{where}: parameter {unused[0]!r} takes no part in the output; use it, or freeze it")
