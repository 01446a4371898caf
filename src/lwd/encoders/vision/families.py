"""The families of vision transformers that transformers publishes, and how each is asked for its patch tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lwd.encoders.vision.pixels import CLIP, HALF, IMAGENET, MeanStd


def _as_it_is(model: Any, pixels: Tensor) -> Any:
    """Positions follow the image's size by themselves."""
    return model(pixels)


def _interpolated(model: Any, pixels: Tensor) -> Any:
    """Positions are interpolated where the image has another size than the model's own."""
    return model(pixels, interpolate_pos_encoding=True)


def _unmasked(model: Any, pixels: Tensor) -> Any:
    """No token masked (`Family.changes`), and in order: the model sorts by the noise, which is random by default."""
    count = (pixels.shape[-1] // model.config.patch_size) ** 2
    order = torch.arange(count, device=pixels.device).expand(len(pixels), -1)
    return model(pixels, noise=order, interpolate_pos_encoding=True)


def _patchified(model: Any, pixels: Tensor) -> Any:
    """Patches instead of an image (NaFlex): (N, s s, p p 3), the colours of a pixel side by side."""
    n, colours, size, _ = pixels.shape
    patch = model.config.patch_size
    side = size // patch
    cut = pixels.reshape(n, colours, side, patch, side, patch).permute(0, 2, 4, 3, 5, 1).reshape(n, side * side, -1)
    mask = torch.ones(n, side * side, dtype=torch.int32, device=pixels.device)
    return model(cut, pixel_attention_mask=mask, spatial_shapes=torch.tensor([[side, side]] * n, device=pixels.device))


@dataclass(frozen=True)
class Family:
    """Models of one ``model_type`` of transformers."""

    title: str
    default: MeanStd
    """Mean and standard deviation of its published preprocessors, for folders that have none."""
    call: Callable[[Any, Tensor], Any] = _interpolated
    class_tokens: int = 1
    """Before the patches; registers follow the class token, as many as the config says."""
    resizes: bool = False
    """It was trained at many sizes, or made for them, so it is shown images of whatever size gives the grid wanted;
    others see images of the size they were trained at."""
    norm: str | None = "layernorm"
    """The final norm, which the features have been through; None: they have not (`TransformersEncoder`)."""
    changes: tuple[tuple[str, Any], ...] = ()
    """What of the config is set otherwise than published."""

    def prefix(self, config: Any) -> int:
        """How many tokens come before the patches."""
        return self.class_tokens + int(getattr(config, "num_register_tokens", 0) or 0)

    def tokens(self, model: Any, pixels: Tensor) -> Tensor:
        """The model's input (N, 3, s p, s p) -> patch tokens (N, s s, D), row by row."""
        tokens: Tensor = self.call(model, pixels.to(model.dtype)).last_hidden_state[:, self.prefix(model.config) :]
        return tokens.float()


FAMILIES: dict[str, Family] = {
    "dinov2": Family("DINOv2", IMAGENET, call=_as_it_is, resizes=True),
    "dinov2_with_registers": Family("DINOv2 with registers", IMAGENET, call=_as_it_is, resizes=True),
    "dinov3_vit": Family("DINOv3", IMAGENET, call=_as_it_is, resizes=True, norm="norm"),
    "clip_vision_model": Family("CLIP", CLIP, norm=None),
    "siglip_vision_model": Family("SigLIP, SigLIP 2", HALF, class_tokens=0, norm="post_layernorm"),
    "siglip2_vision_model": Family(
        "SigLIP 2 NaFlex", HALF, call=_patchified, class_tokens=0, resizes=True, norm="post_layernorm"
    ),
    "vit_mae": Family("MAE", IMAGENET, call=_unmasked, changes=(("mask_ratio", 0.0),)),
    "ijepa": Family("I-JEPA", IMAGENET, class_tokens=0),
    "vit": Family("ViT, DINO", HALF),
}
"""By ``model_type``, of the vision tower where a model has two."""
