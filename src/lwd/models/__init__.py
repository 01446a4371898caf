"""Networks: plain functions of (z, local times, labels)."""

from lwd.models.flops import forward_flops, training_flops
from lwd.models.lightningdit import LightningDiT
from lwd.models.pretrained import load_model
from lwd.models.sfd import load_sfd_checkpoint, save_sfd_checkpoint
from lwd.models.sizes import SIZES, ModelConfig, create
from lwd.runtime.hub import WEIGHTS, load_weights, model_files, save_model

__all__ = [
    "SIZES",
    "WEIGHTS",
    "LightningDiT",
    "ModelConfig",
    "create",
    "forward_flops",
    "load_model",
    "load_sfd_checkpoint",
    "load_weights",
    "model_files",
    "save_model",
    "save_sfd_checkpoint",
    "training_flops",
]
