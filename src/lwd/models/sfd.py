"""Released checkpoints of SFD (Semantic-First Diffusion, arXiv 2512.04926) <-> `LightningDiT`.

SFD leaves a ``.pt`` with the state dicts ``model`` and ``ema`` (and ``opt``), keys perhaps prefixed ``module.``. Its
groups are the texture and the semantic latent, and it concatenates the time embeddings semantics first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.groups import Group, Layout
from lwd.models.lightningdit import LightningDiT
from lwd.runtime.checkpoint import check_tensors
from lwd.runtime.untrusted import load_foreign, save_foreign

SFD_LAYOUT = Layout([Group("tex", 32, 1.0), Group("sem", 16, 2.0)])
SFD_LEADER = "sem"
SFD_TIME_ORDER = ("sem", "tex")
Weights = Literal["ema", "model"]
REPA_BLOCK = 2
"""After how many blocks SFD projects (method, Section 4)."""
ROTARY_TOLERANCE = 1e-5
"""Cosines and sines of angles up to a few hundred, in float32 on both sides."""

_RENAMED = (
    (r"x_embedder\.", "x_embedder.proj."),
    (r"t_embedder\.by_group\.(\w+?)\.mlp\.", r"t_embedder_\1.mlp."),
    (r"y_embedder\.", "y_embedder.embedding_table."),
)
_ROTARY = ("feat_rope.freqs_cos", "feat_rope.freqs_sin")


def load_sfd_checkpoint(path: str | Path, which: Weights = "ema", layout: Layout | None = None) -> LightningDiT:
    """A released SFD checkpoint as it is -> the same function as a `LightningDiT`, on the CPU, in evaluation mode.

    ``which``: the averaged weights or the live ones. ``layout`` (default: texture 32, semantics 16): how the channels
    are shared out, which the file does not say. Size, patch, grid, classes and the REPA projector are read off the
    shapes; after how many blocks REPA projects is not in the file either, and is left at 2. Raises UserError for a file
    that is missing, damaged or malicious, and for one whose keys, shapes, groups or rotary table are others.
    """
    path, layout = Path(path), layout or SFD_LAYOUT
    state = _state_dict(load_foreign(path), which, path)
    _check_groups(state, layout, path)
    try:
        model = LightningDiT(layout, time_order=SFD_TIME_ORDER, **_sizes(state))
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not an SFD checkpoint, the network's size cannot be read off it ({error})") from error
    names = {name: _sfd_name(name) for name in model.state_dict()}
    wanted = {**{names[name]: tensor for name, tensor in model.state_dict().items()}, **_rotary(model)}
    check_tensors(state, wanted, str(path))
    for key, table in _rotary(model).items():
        tolerance = max(ROTARY_TOLERANCE, torch.finfo(state[key].dtype).eps)
        if not float((state[key].float() - table).abs().max()) <= tolerance:
            raise UserError(f"{path}: {key!r} is another rotary embedding than LightningDiT's")
    model.load_state_dict({name: state[key] for name, key in names.items()})
    return model.eval()


def save_sfd_checkpoint(model: LightningDiT, path: str | Path) -> None:
    """Write what SFD's code loads: a ``.pt`` whose ``model`` and ``ema`` are this network, in SFD's names and order.

    Raises UserError where the groups are not SFD's. A network that concatenates its time embeddings in another order
    gets its condition channels reordered, which leaves the function as it is.
    """
    if model.layout.names != SFD_LAYOUT.names:
        raise UserError(f"{path}: SFD's code knows the groups {list(SFD_LAYOUT.names)}, this model has {model.layout}")
    if model.t_embedder.added:
        raise UserError(
            f"{path}: group {model.t_embedder.added[0]!r} was added by train.init_from; SFD's has no such form"
        )
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if tuple(model.t_embedder.by_group) != SFD_TIME_ORDER:
        state = {name: _swap_condition(name, tensor) for name, tensor in state.items()}
    renamed = {**{_sfd_name(name): tensor for name, tensor in state.items()}, **_rotary(model)}
    save_foreign(Path(path), {"model": renamed, "ema": renamed})


def _state_dict(payload: Any, which: str, path: Path) -> dict[str, Tensor]:
    """One state dict of the file, without the prefixes that DDP and torch.compile leave."""
    if not isinstance(payload, Mapping) or not isinstance(payload.get(which), Mapping):
        names = [key for key in payload if isinstance(key, str)] if isinstance(payload, Mapping) else []
        held = ", ".join(names) or type(payload).__name__
        raise UserError(f"{path}: holds no state dict {which!r} (it has {held[:200]})")
    state = {re.sub(r"^(module\.|_orig_mod\.)+", "", str(key)): value for key, value in payload[which].items()}
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{path}: {which}[{key!r}] is not a tensor but a {type(value).__name__}")
        plain = value.layout == torch.strided and value.device.type == "cpu" and value.is_floating_point()
        if not plain or value.untyped_storage().nbytes() < value.numel() * value.element_size():
            raise UserError(f"{path}: {which}[{key!r}] is not a plain tensor of real numbers")
        if not bool(torch.isfinite(value).all()):
            raise UserError(f"{path}: {which}[{key!r}] holds values that are not finite")
    return state


def _check_groups(state: Mapping[str, Tensor], layout: Layout, path: Path) -> None:
    """Raise UserError unless the file's time embedders and channels are the layout's."""
    found = sorted({m[1] for key in state if (m := re.match(r"t_embedder_(\w+)\.", key))})
    if not found:
        raise UserError(f"{path}: not an SFD checkpoint, it has no time embedder 't_embedder_<group>' for each group")
    if found != sorted(SFD_TIME_ORDER) or layout.names != SFD_LAYOUT.names:
        raise UserError(
            f"{path}: a checkpoint of the groups {', '.join(found)} (channel order {', '.join(SFD_LAYOUT.names)}), "
            f"the layout is {layout}"
        )
    kernel = state.get("x_embedder.proj.weight")
    if kernel is not None and kernel.ndim == 4 and kernel.shape[1] != layout.channels:
        raise UserError(f"{path}: a checkpoint of {kernel.shape[1]} channels, the layout is {layout}")


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The constructor's arguments, inferred from the tensors' shapes."""
    width, _, patch, _ = state["x_embedder.proj.weight"].shape
    depth = len({m[1] for key in state if (m := re.match(r"blocks\.(\d+)\.", key))})
    repa = "repa_projector.0.weight" in state
    return {
        "input_size": math.isqrt(state["pos_embed"].shape[1]) * patch,
        "num_classes": len(state["y_embedder.embedding_table.weight"]) - 1,
        "depth": depth,
        "width": width,
        "heads": width // len(state["blocks.0.attn.q_norm.weight"]),
        "patch_size": patch,
        "feature_dim": len(state["repa_projector.4.weight"]) if repa else None,
        "repa_block": min(REPA_BLOCK, depth),
        **({"projector_width": len(state["repa_projector.0.weight"])} if repa else {}),
    }


def _sfd_name(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name, changed = re.subn(f"^{pattern}", replacement, name)
        if changed:
            break
    return name


def _rotary(model: LightningDiT) -> dict[str, Tensor]:
    """SFD's rotary buffers (L, head width); the sines without the signs that `lwd.models.layers.rotate` wants."""
    sign = torch.tensor([-1.0, 1.0]).repeat(model.rotary_sin.shape[1] // 2)
    return dict(zip(_ROTARY, (model.rotary_cos.cpu().clone(), model.rotary_sin.cpu() * sign), strict=True))


def _swap_condition(name: str, tensor: Tensor) -> Tensor:
    """Exchange the halves of the condition: of what writes it (class table) and of what reads it (modulations)."""
    if name == "y_embedder.weight" or name.endswith("adaLN_modulation.1.weight"):
        return tensor.roll(tensor.shape[1] // 2, dims=1)
    return tensor
