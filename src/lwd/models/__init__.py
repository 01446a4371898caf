"""Networks: plain functions of (z, local times, labels)."""

from lwd.models.lightningdit import LightningDiT
from lwd.models.pretrained import load_model, load_weights, save_model
from lwd.models.sizes import SIZES, ModelConfig, create

__all__ = ["SIZES", "LightningDiT", "ModelConfig", "create", "load_model", "load_weights", "save_model"]
