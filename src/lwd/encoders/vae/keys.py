"""Names and shapes of latent-diffusion's f16d32 AutoencoderKL: the released checkpoint's <-> diffusers'.

Released: CompVis latent-diffusion `ldm/modules/diffusionmodules/model.py`; diffusers: `AutoencoderKL`. The weights are
the same; the attention's projections are 1x1 convolutions (C, C, 1, 1) there and linear maps (C, C) here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from lwd.errors import UserError

MULTIPLIERS = (1, 1, 2, 2, 4)
RES_BLOCKS = 2
ATTENTION_LEVEL = 4  # resolution 16 of 256
CONFIG: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4 + ("AttnDownEncoderBlock2D",),
    "up_block_types": ("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 4,
    "block_out_channels": tuple(128 * multiplier for multiplier in MULTIPLIERS),
    "layers_per_block": RES_BLOCKS,
    "latent_channels": 32,
    "sample_size": 256,
    "scaling_factor": 1.0,
}
SIZES = ("down_block_types", "block_out_channels", "layers_per_block", "latent_channels")
"""What of it tells the model from others."""

_LOSS = "loss."  # the discriminator and LPIPS, which the released file keeps for training
_BLOCK = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2"}
_SHORTCUT = {"nin_shortcut": "conv_shortcut"}
_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_ENDS = {"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"}


def to_diffusers(released: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], where: str) -> dict[str, Tensor]:
    """A released state dict -> diffusers'; ``shapes`` are those of diffusers' model, ``where`` names the file.

    ``loss.*`` is left out. Raises UserError for the first key that is missing, unknown, or of another shape.
    """
    return _convert({key: value for key, value in released.items() if not key.startswith(_LOSS)}, shapes, where, False)


def to_released(tensors: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], where: str) -> dict[str, Tensor]:
    """The reverse of `to_diffusers`, bit for bit, without ``loss.*``; raises UserError alike."""
    return _convert(tensors, shapes, where, True)


def key_map() -> dict[str, str]:
    """Released name -> diffusers' name, for every tensor."""
    return {
        f"{old}.{kind}": f"{new}.{kind}" for old, new in [*_encoder(), *_decoder()] for kind in ("weight", "bias")
    } | {
        f"{name}.{kind}": f"{name}.{kind}" for name in ("quant_conv", "post_quant_conv") for kind in ("weight", "bias")
    }


def _convert(
    tensors: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], where: str, reverse: bool
) -> dict[str, Tensor]:
    converted: dict[str, Tensor] = {}
    names = key_map()
    for old, new in names.items():
        source, target = (new, old) if reverse else (old, new)
        here = shapes[new]
        there = (*here, 1, 1) if _is_projection(new) else here
        wanted, result = (here, there) if reverse else (there, here)
        if source not in tensors:
            raise UserError(f"{where}: key {source!r} is missing; not an f16d32 AutoencoderKL of latent-diffusion")
        tensor = tensors[source]
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != wanted:
            found = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise UserError(f"{where}: {source!r} is {found}, f16d32 needs a tensor of shape {wanted}")
        converted[target] = tensor.reshape(result)
    if unknown := sorted(set(tensors) - set(names.values() if reverse else names)):
        raise UserError(f"{where}: unknown key {unknown[0]!r}; not an f16d32 AutoencoderKL of latent-diffusion")
    return converted


def _is_projection(name: str) -> bool:
    return ".attentions." in name and name.endswith(".weight") and "group_norm" not in name


def _encoder() -> Iterator[tuple[str, str]]:
    channels = [MULTIPLIERS[0], *MULTIPLIERS]
    for level in range(len(MULTIPLIERS)):
        old, new = f"encoder.down.{level}", f"encoder.down_blocks.{level}"
        for block in range(RES_BLOCKS):
            widened = block == 0 and channels[level] != channels[level + 1]
            yield from _block(f"{old}.block.{block}", f"{new}.resnets.{block}", widened)
            if level == ATTENTION_LEVEL:
                yield from _parts(f"{old}.attn.{block}", f"{new}.attentions.{block}", _ATTENTION)
        if level < len(MULTIPLIERS) - 1:
            yield f"{old}.downsample.conv", f"{new}.downsamplers.0.conv"
    yield from _middle_and_ends("encoder")


def _decoder() -> Iterator[tuple[str, str]]:
    top = len(MULTIPLIERS) - 1
    channels = [*MULTIPLIERS, MULTIPLIERS[-1]]
    for level in range(len(MULTIPLIERS)):  # diffusers counts from the coarsest level
        old, new = f"decoder.up.{level}", f"decoder.up_blocks.{top - level}"
        for block in range(RES_BLOCKS + 1):
            narrowed = block == 0 and channels[level] != channels[level + 1]
            yield from _block(f"{old}.block.{block}", f"{new}.resnets.{block}", narrowed)
            if level == ATTENTION_LEVEL:
                yield from _parts(f"{old}.attn.{block}", f"{new}.attentions.{block}", _ATTENTION)
        if level > 0:
            yield f"{old}.upsample.conv", f"{new}.upsamplers.0.conv"
    yield from _middle_and_ends("decoder")


def _middle_and_ends(side: str) -> Iterator[tuple[str, str]]:
    yield from _block(f"{side}.mid.block_1", f"{side}.mid_block.resnets.0", False)
    yield from _parts(f"{side}.mid.attn_1", f"{side}.mid_block.attentions.0", _ATTENTION)
    yield from _block(f"{side}.mid.block_2", f"{side}.mid_block.resnets.1", False)
    yield from _parts(side, side, _ENDS)


def _block(old: str, new: str, shortcut: bool) -> Iterator[tuple[str, str]]:
    yield from _parts(old, new, _BLOCK | _SHORTCUT if shortcut else _BLOCK)


def _parts(old: str, new: str, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for released, ours in names.items():
        yield f"{old}.{released}", f"{new}.{ours}"
