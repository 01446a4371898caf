"""Patch features of frozen vision transformers, through transformers."""

from lwd.encoders.vision.encoder import TransformersEncoder, load_transformers_encoder
from lwd.encoders.vision.families import FAMILIES, Family
from lwd.encoders.vision.published import (
    VISION_MODELS,
    PatchEncoder,
    architecture,
    blank_patch_encoder,
    load_patch_encoder,
    random_patch_encoder,
    vision_model,
)

__all__ = [
    "FAMILIES",
    "VISION_MODELS",
    "Family",
    "PatchEncoder",
    "TransformersEncoder",
    "architecture",
    "blank_patch_encoder",
    "load_patch_encoder",
    "load_transformers_encoder",
    "random_patch_encoder",
    "vision_model",
]
